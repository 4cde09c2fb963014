// The gradient explorer: how much of the gradient of the last hidden state reaches the input of k steps before.
"use strict";
{
const { html, number, slider, button, liveRegion, address, chart, legend, scientific } = widgets;
const I = 4, H = 16;
const LIMITS = { bias: [-2, 8], length: [10, 100], scale: [0, 8], lag: [0, 99], seed: [0, 999] };

const AT_FIRST = { bias: 0, length: 60, scale: 1, lag: 50, seed: 0 };

function start(host) {
  const state = { ...AT_FIRST };
  let curves, net, xs;

  function compute() {
    const random = lstm.uniform(state.seed);
    net = lstm.network("LSTM", I, H, random, state.bias);
    xs = Array.from({ length: state.length }, () => Float64Array.from({ length: I }, () => lstm.normal(random)));
    net.p.weight_hh = net.p.weight_hh.map(w => state.scale * w);
    const steps = lstm.forward(net, xs), norms = lstm.gradientByLag(net, steps);
    const product = new Float64Array(H).fill(1), direct = [1];
    for (let k = 1; k < state.length; k++) {                // the direct path over k steps: f_T f_{T−1} … f_{T−k+1},
      const f = steps[state.length - k].f;
      product.forEach((p, unit) => { product[unit] = p * f[unit]; });
      direct.push(product.reduce((sum, p) => sum + p) / H); // in the mean of the units
    }
    curves = {
      whole: Array.from(norms, n => n / norms[0]),
      direct,
      formula: direct.map((_, k) => lstm.sigmoid(state.bias) ** k),
    };
  }

  const picture = chart({ height: 320, ylabel: "Gradient, relative to lag 0" });
  const LINES = [
    ["whole", "lab-lstm", "all paths"], ["direct", "lab-forget lab-dashed", "direct path: forget gates multiplied"],
    ["formula", "lab-dotted", "σ(b)ᵏ: gates that do not listen"],
  ];
  const cells = LINES.map(([name, , words]) => ({ name, words, value: html("td", {}), half: html("td", {}) }));
  const head = html("th", { scope: "col" });
  const table = html("table", { class: "lab-table" },
    html("thead", {}, html("tr", {},
      html("th", { scope: "col" }, "path"), head, html("th", { scope: "col" }, "½ or less from lag"))),
    html("tbody", {}, ...cells.map(c => html("tr", {}, html("th", { scope: "row" }, c.words), c.value, c.half))));

  const part = (name, label, step, show) => slider({
    label, min: LIMITS[name][0], max: LIMITS[name][1], step, value: state[name], show,
    change: v => { state[name] = v; update(); },
  });
  const sliders = {
    bias: part("bias", "Forget bias b", 0.1, v => number(v, 1)),
    length: part("length", "Length T", 1),
    scale: part("scale", "Weights on h ×", 0.25, v => number(v, 2)),
    lag: part("lag", "Lag to read off", 1),
  };
  const another = button("Another layer", () => { state.seed = (state.seed + 1) % 1000; update(); });
  const fresh = button("As at first", () => { Object.assign(state, AT_FIRST); update(); });
  const live = liveRegion(), halfLife = html("p", {});

  const written = () => Object.values(state).map(v => +v.toFixed(2)).join(",");
  function restore(text) {
    const found = address.numbers(text, Object.values(LIMITS));
    if (!found) return false;
    Object.keys(state).forEach((name, k) => {
      state[name] = ["bias", "scale"].includes(name) ? found[k] : Math.round(found[k]);
    });
    return true;
  }

  function update(keep = true) {
    state.lag = Math.min(state.lag, state.length - 1);
    compute();
    const all = Object.values(curves).flat().filter(v => v > 0);
    const low = 10 ** Math.floor(Math.log10(Math.min(...all))), high = 10 ** Math.ceil(Math.log10(Math.max(...all)) + 1e-9);
    const life = Math.LN2 / Math.log1p(Math.exp(-state.bias));
    const [whole, direct] = [curves.whole, curves.direct].map(line => scientific(line[state.lag]));
    const told = `At lag ${state.lag} the gradient is ${whole} of that at lag 0, on the direct path ${direct}.`;
    picture.draw({
      x: [0, state.length - 1], y: [Math.min(low, 0.1), Math.max(high, 1)], log: true, at: state.lag, xlabel: "lag k",
      lines: LINES.map(([name, as]) => ({ as, points: curves[name].map((v, k) => [k, v]) })),
      words: `Three falling or rising lines over the lag, on a logarithmic axis. ${told}`,
    });
    head.textContent = `at lag ${state.lag}`;
    for (const { name, value, half } of cells) {
      const first = curves[name].findIndex(v => v <= 0.5 + 1e-12);
      value.textContent = scientific(curves[name][state.lag]);
      half.textContent = first < 0 ? `not in ${state.length}` : first;
    }
    halfLife.textContent = `Half-life by the formula, ln 2 / ln(1 + e⁻ᵇ): ${number(life, life < 100 ? 1 : 0)} steps, ` +
      `with f = σ(b) = ${number(lstm.sigmoid(state.bias), 4)}.`;
    sliders.lag.input.max = state.length - 1;
    for (const [name, one] of Object.entries(sliders)) one.set(state[name]);
    if (!keep) return;
    address.write("gradient", written());
    live.say(() => `Forget bias ${number(state.bias, 1)}, half-life ${number(life, 1)} steps. ${told}`);
  }

  host.replaceChildren(
    html("div", { class: "lab-controls" }, ...Object.values(sliders).map(one => one.root)),
    html("div", { class: "lab-buttons" }, another, fresh, address.copier("gradient", written, live)),
    picture.root, legend(LINES.map(([, as, words]) => [as, words])), table, halfLife, live.root);
  update(false);
  address.follow("gradient", host, live, restore, () => update(false));
  laboratory.gradient = { state, update, get curves() { return curves; }, get net() { return net; }, get xs() { return xs; } };
}

const host = document.getElementById("lab-gradient");
if (host) start(host);
}

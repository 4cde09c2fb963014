// The gate laboratory: one LSTM cell of one unit; its input is drawn, its twelve numbers are sliders.
"use strict";
{
const { html, svg, number, slider, button, liveRegion, address, onWidth } = widgets;
const T = 24;

const GATES = [["i", "input gate", "input"], ["f", "forget gate", "forget"], ["g", "candidate", "candidate"], ["o", "output gate", "output"]];
const PANELS = [       // symbol, name, colour, range (null: as large as c gets), height
  ["i", "input gate", "input", [0, 1], 34], ["f", "forget gate", "forget", [0, 1], 34],
  ["g", "candidate", "candidate", [-1, 1], 44], ["o", "output gate", "output", [0, 1], 34],
  ["c", "cell state", "cell", null, 72], ["h", "hidden state", "hidden", [-1, 1], 52],
];

// The candidate needs finer numbers than a gate, which has only to be open or shut.
const GATE = { min: -20, max: 20, step: 0.5 }, CANDIDATE = { min: -3, max: 3, step: 0.05 };
const LIMITS = "ifgo".split("").flatMap(gate => Array(3).fill(gate === "g" ? CANDIDATE : GATE));

const at = (values, rest = () => 0) => Array.from({ length: T }, (_, k) => values[k + 1] ?? rest(k + 1));
const hum = k => 0.05 * Math.round(8 * Math.sin(2.4 * k));           // what a memory should not listen to: up to ±0.4

// Weights: of i, f, g, o, each on x, on h, and its bias. 10 opens a gate, −10 shuts it: σ(±10) is 1 or 0 to 0.00005.
const PRESETS = {
  keep: {
    w: [20, 0, -15, 0, 0, 10, 2, 0, 0, 0, 0, 10], x: at({ 4: 1 }, hum),
    says: "The input gate opens for a large x only. What was written at step 4 lies in the cell to the end: the forget gate stands open, and small inputs leave no trace.",
  },
  forget: {
    w: [20, 0, -15, 0, 0, 2, 2, 0, 0, 0, 0, 10], x: at({ 4: 1 }, hum),
    says: "The same cell with a forget bias of 2 in place of 10. Each step keeps σ(2) = 88 %, so that half is gone every five and a half steps.",
  },
  count: {
    w: [20, 0, -10, 0, 0, 10, 0, 0, 3, 0, 0, 10], x: at({ 3: 1, 6: 1, 7: 1, 11: 1, 15: 1, 16: 1, 17: 1, 21: 1 }),
    says: "Each input of 1 opens the input gate for one step and adds 0.995 to the cell. The cell goes on counting; the hidden state, squashed, cannot tell four from eight.",
  },
  "count again": {
    w: [20, 0, -10, 20, 0, 10, 0, 0, 3, 0, 0, 10], x: at({ 2: 1, 4: 1, 6: 1, 10: -1, 13: 1, 15: 1, 19: -1, 22: 1 }),
    says: "The counter, with a forget gate that listens: an input of −1 shuts it for one step, and the count starts again from 0.",
  },
  latch: {
    w: [20, -20, -10, 20, 0, 10, 0, 0, 3, 0, 0, 10], x: at({ 3: 1, 6: 1, 9: 1, 13: -1, 17: 1, 21: -1 }),
    says: "A switch: 1 sets the cell, −1 clears it. A second 1 changes nothing, because the hidden state, once set, keeps the input gate shut.",
  },
  "show when asked": {
    w: [-20, 0, -10, 0, 0, 10, 0, 0, 3, 20, 0, -10], x: at({ 3: -1, 5: -1, 12: 1, 19: 1 }),
    says: "An input of −1 is counted, an input of 1 asks for the count. In between the output gate is shut: the cell holds its value, and the hidden state shows nothing of it.",
  },
  average: {
    w: [0, 0, -2, 0, 0, 2, 1, 0, 0, 0, 0, 10], x: at({}, k => (k > 4 && k < 15 ? 1 : k > 17 ? -1 : 0)),
    says: "Keep 88 %, write 12 %: the two gates add up to 1, so that the cell follows tanh(x), a little slower than it moves.",
  },
  "nothing set": {
    w: [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], x: at({ 4: 1, 12: -1 }),
    says: "All gates stand at ½, as in a layer whose weights are all near 0. What was written is halved at every step. A place to begin a cell of your own.",
  },
};

function start(host) {
  const state = { w: [...PRESETS.keep.w], x: [...PRESETS.keep.x], t: 4 };
  let steps, preset = "keep", width = 0;

  // --- what is computed

  function compute() {
    const column = k => Float64Array.from([0, 1, 2, 3], gate => state.w[3 * gate + k]);
    const p = { weight_ih: column(0), weight_hh: column(1), bias_ih: column(2), bias_hh: new Float64Array(4) };
    steps = lstm.forward({ unit: "LSTM", inputSize: 1, hiddenSize: 1, p }, state.x.map(x => [x]));
  }

  // --- the drawing: x, in which one draws, and below it all that follows from it

  const left = 30, right = 4, xHeight = 86;
  const pen = svg("svg", { class: "lab-pen", height: xHeight + 24, role: "img" });
  const trace = svg("svg", { class: "lab-trace", role: "img" });
  const pictures = html("div", { class: "lab-pictures" }, pen, trace);
  const rows = [];

  const X = k => left + (width - left - right) * k / T;
  const tick = (words, y) => svg("text", { x: left - 6, y: y + 5, "text-anchor": "end" }, words);

  function panel(symbol, name, colour, height, y) {
    const row = {
      y, height, symbol,
      bars: svg("path", { class: `lab-bars lab-${colour}` }), zero: svg("path", { class: "lab-axis" }),
      high: tick("", y + 6), low: tick("", y + height - 4),
      value: svg("text", { y: y - 7, "text-anchor": "end", class: "lab-number" }), mark: svg("rect", { class: "lab-now", y: y - 2, height: height + 4 }),
    };
    row.root = svg("g", {}, row.mark, row.bars, row.zero, row.high, row.low, row.value,
      svg("rect", { class: `lab-bars lab-${colour}`, x: left, y: y - 17, width: 11, height: 11 }),
      svg("text", { x: left + 17, y: y - 7 }, svg("tspan", { class: "lab-symbol" }, symbol), ` ${name}`));
    return row;
  }

  const input = panel("x", "input: draw here", "x", xHeight, 22);
  pen.append(input.root);
  let below = 0;
  for (const [symbol, name, colour, , height] of PANELS) {
    rows.push(panel(symbol, name, colour, height, below + 22));
    below += height + 28;
  }
  trace.setAttribute("height", below);
  trace.append(...rows.map(row => row.root));

  function bars(row, values, [low, high]) {
    const Y = v => row.y + row.height * (high - v) / (high - low), gap = Math.min(2, (X(1) - X(0)) / 6);
    row.bars.setAttribute("d", values.map((v, k) => `M${(X(k) + gap).toFixed(1)} ${Y(0).toFixed(1)}V${Y(v).toFixed(1)}H${(X(k + 1) - gap).toFixed(1)}V${Y(0).toFixed(1)}Z`).join(""));
    row.zero.setAttribute("d", `M${left} ${Y(0)}H${width - right}`);
    row.high.textContent = number(high, 0);
    row.low.textContent = number(low, 0);
    row.value.setAttribute("x", width - right);
    row.value.textContent = number(values[state.t - 1]);
    row.mark.setAttribute("x", X(state.t - 1));
    row.mark.setAttribute("width", X(1) - X(0));
  }

  function drawPictures() {
    if (!width) return;
    for (const [picture, height] of [[pen, xHeight + 24], [trace, below]]) picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    bars(input, state.x, [-1, 1]);
    PANELS.forEach(([symbol, , , range], k) => {
      const values = steps.map(s => s[symbol][0]);
      bars(rows[k], values, range ?? [Math.floor(Math.min(0, ...values)), Math.ceil(Math.max(1, ...values))]);
    });
    const end = steps[T - 1];
    pen.setAttribute("aria-label", `Input x over ${T} steps. ${inWords(state.x)}`);
    trace.setAttribute("aria-label", `Gates, cell state and hidden state over ${T} steps. The cell state ends at ${number(end.c[0])}, the hidden state at ${number(end.h[0])}.`);
  }

  const inWords = xs => {
    const large = xs.map((x, k) => [x, k + 1]).filter(([x]) => Math.abs(x) > 0.5).map(([x, k]) => `${number(x)} at step ${k}`);
    return large.length ? `Large at: ${large.join(", ")}.` : "Nowhere larger than one half.";
  };

  // --- drawing with a pointer; a stroke that skips steps is filled in

  let stroke = null;
  const place = (event, picture) => {
    const box = picture.getBoundingClientRect(), k = Math.floor((event.clientX - box.left - left) / (X(1) - X(0)));
    const v = 1 - 2 * (event.clientY - box.top - input.y) / xHeight;
    return { k: Math.max(0, Math.min(T - 1, k)), v: Math.max(-1, Math.min(1, Math.round(v * 20) / 20)) };
  };
  function drawn(event) {
    const { k, v } = place(event, pen), from = stroke ?? { k, v }, n = Math.max(1, Math.abs(k - from.k));
    for (let j = 0; j <= n; j++) {
      state.x[Math.round(from.k + (k - from.k) * j / n)] = Math.round((from.v + (v - from.v) * j / n) * 20) / 20;
    }
    stroke = { k, v };
    state.t = k + 1;
    update();
  }
  pen.addEventListener("pointerdown", event => { pen.setPointerCapture(event.pointerId); drawn(event); });
  pen.addEventListener("pointermove", event => { if (stroke) drawn(event); });
  for (const end of ["pointerup", "pointercancel"]) pen.addEventListener(end, () => { stroke = null; });
  const choose = event => { state.t = place(event, trace).k + 1; update(); };
  trace.addEventListener("pointerdown", choose);
  trace.addEventListener("pointermove", event => { if (event.buttons) choose(event); });

  // --- the same by keyboard: a step, and the input at this step

  const step = slider({ label: "Step", min: 1, max: T, step: 1, value: state.t, change: t => { state.t = t; update(); } });
  const value = slider({
    label: "x at this step", min: -1, max: 1, step: 0.05, value: 0, show: v => number(v),
    change: v => { state.x[state.t - 1] = v; update(); },
  });
  const empty = button("Clear the input", () => { state.x.fill(0); update(); });

  // --- weights

  const weights = LIMITS.map((limits, k) => slider({
    label: ["weight on x", "weight on h", "bias"][k % 3], ...limits, value: state.w[k],
    show: v => number(v, limits === CANDIDATE ? 2 : 1), change: v => { state.w[k] = v; update(); },
  }));
  const groups = GATES.map(([symbol, name, colour], k) => html("fieldset", { class: `lab-gate lab-${colour}` },
    html("legend", {}, html("i", {}, symbol), ` ${name}`), ...weights.slice(3 * k, 3 * k + 3).map(w => w.root)));

  // --- the six equations, with the numbers of the chosen step

  const sub = (letter, index) => html("span", {}, html("i", {}, letter), html("sub", {}, index));
  const equations = [...GATES.map(([symbol, , colour]) => [symbol, colour]), ["c", "cell"], ["h", "hidden"]].map(([symbol, colour]) => {
    const filled = html("span", { class: "lab-filled" }), f = symbol === "g" ? "tanh" : "σ", gate = "ifgo".includes(symbol);
    const general = gate
      ? [sub(symbol, "t"), ` = ${f}(`, sub("w", `${symbol}x`), " ", sub("x", "t"), " + ", sub("w", `${symbol}h`), " ", sub("h", "t−1"), " + ", sub("b", symbol), ")"]
      : symbol === "c"
        ? [sub("c", "t"), " = ", sub("f", "t"), " ", sub("c", "t−1"), " + ", sub("i", "t"), " ", sub("g", "t")]
        : [sub("h", "t"), " = ", sub("o", "t"), " tanh(", sub("c", "t"), ")"];
    return { symbol, filled, root: html("li", { class: `lab-${colour}` }, html("span", { class: "lab-general" }, ...general), filled) };
  });

  function fill() {
    const s = steps[state.t - 1], x = s.x[0], last = { h: s.last.h[0], c: s.last.c[0] };
    const plus = (v, digits = 2) => `${v < 0 ? "−" : "+"} ${number(Math.abs(v), digits)}`;
    for (const { symbol, filled } of equations) {
      const k = 3 * "ifgo".indexOf(symbol), f = symbol === "g" ? "tanh" : "σ", [wx, wh, b] = state.w.slice(k, k + 3);
      filled.textContent = symbol === "c"
        ? `= ${number(s.f[0], 3)} × ${number(last.c)} + ${number(s.i[0], 3)} × ${number(s.g[0])} = ${number(s.c[0], 3)}`
        : symbol === "h"
          ? `= ${number(s.o[0], 3)} × tanh(${number(s.c[0])}) = ${number(s.h[0], 3)}`
          : `= ${f}(${number(wx)} × ${number(x)} ${plus(wh)} × ${number(last.h)} ${plus(b)}) = ${f}(${number(wx * x + wh * last.h + b)}) = ${number(s[symbol][0], 3)}`;
    }
  }

  // --- presets, the link, and what is said

  const presets = Object.keys(PRESETS).map(name => button(name, () => {
    Object.assign(state, { w: [...PRESETS[name].w], x: [...PRESETS[name].x] });
    preset = name;
    update();
  }));
  const sentence = html("p", { class: "lab-sentence" });
  const live = liveRegion();
  const heading = html("span", {});

  const written = () => `${state.w.map(v => +v.toFixed(2))};${state.x.map(v => +v.toFixed(2))};${state.t}`;
  function restore() {
    const [w, x, t] = (address.read("gates") ?? "").split(";");
    const found = [address.numbers(w, LIMITS.map(l => [l.min, l.max])), address.numbers(x, Array(T).fill([-1, 1])), address.numbers(t, [[1, T]])];
    if (found.includes(null) || found.some(part => !part)) return false;
    Object.assign(state, { w: found[0], x: found[1], t: Math.round(found[2][0]) });
    preset = Object.keys(PRESETS).find(name => String(PRESETS[name].w) === String(state.w)) ?? null;
    return true;
  }

  function update(keep = true) {
    compute();
    drawPictures();
    fill();
    step.set(state.t);
    value.set(state.x[state.t - 1]);
    weights.forEach((w, k) => w.set(state.w[k]));
    const same = preset && String(PRESETS[preset].w) === String(state.w);
    Object.keys(PRESETS).forEach((name, k) => presets[k].setAttribute("aria-pressed", same && name === preset));
    sentence.textContent = same ? PRESETS[preset].says : preset ? `A cell of your own, begun from "${preset}".` : "A cell of your own.";
    heading.textContent = `The six equations at step ${state.t}`;
    if (keep) address.write("gates", written());
    const s = steps[state.t - 1];
    live.say(`Step ${state.t}: x ${number(s.x[0])}, ${[..."ifgoch"].map(name => `${name} ${number(s[name][0])}`).join(", ")}.`);
  }

  host.replaceChildren(
    html("div", { class: "lab-presets", role: "group", "aria-label": "Presets" }, ...presets), sentence, pictures,
    html("div", { class: "lab-steps" }, step.root, value.root),
    html("div", { class: "lab-buttons" }, empty, address.copier("gates", written, live)), live.root,
    html("div", { class: "lab-gates" }, ...groups),
    html("p", { class: "lab-heading" }, heading), html("ul", { class: "lab-equations" }, ...equations.map(e => e.root)));
  restore();
  update(false);
  onWidth(pictures, now => { width = now; drawPictures(); });
  addEventListener("hashchange", () => { if (restore()) update(false); });
  laboratory.gates = { PRESETS, state, update, get steps() { return steps; } };
}

const host = document.getElementById("lab-gates");
if (host) start(host);
}

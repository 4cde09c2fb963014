// The gate laboratory: one LSTM cell of one unit; its input is drawn, its twelve numbers are sliders.
"use strict";
{
const { html, svg, number, slider, button, liveRegion, address, onWidth } = widgets;
const T = 24;

const GATES = [
  ["i", "input gate", "input"], ["f", "forget gate", "forget"],
  ["g", "candidate", "candidate"], ["o", "output gate", "output"],
];
const PANELS = [       // symbol, name, colour, range (null: as large as c gets), height
  ["i", "input gate", "input", [0, 1], 26], ["f", "forget gate", "forget", [0, 1], 26],
  ["g", "candidate", "candidate", [-1, 1], 40], ["o", "output gate", "output", [0, 1], 26],
  ["c", "cell state", "cell", null, 66], ["h", "hidden state", "hidden", [-1, 1], 44],
];

// The candidate needs finer numbers than a gate, which has only to be open or shut.
const GATE = { min: -20, max: 20, step: 0.5 }, CANDIDATE = { min: -3, max: 3, step: 0.05 };
const LIMITS = "ifgo".split("").flatMap(gate => Array(3).fill(gate === "g" ? CANDIDATE : GATE));

const at = (values, rest = () => 0) => Array.from({ length: T }, (_, k) => values[k + 1] ?? rest(k + 1));
const hum = k => 0.05 * Math.round(8 * Math.sin(2.4 * k));           // what a memory should not listen to: up to ±0.4

// w: of i, f, g, o, each on x, on h, and its bias. 10 opens a gate, −10 shuts it: σ(±10) is 1 or 0 to 0.00005.
// says: what such weights do; here: what they do with the input x that comes with them.
const PRESETS = {
  keep: {
    w: [20, 0, -15, 0, 0, 10, 2, 0, 0, 0, 0, 10], x: at({ 4: 1 }, hum),
    says: "The input gate opens for an input above 0.75 only, and the forget gate always stands open.",
    here: "What is written at step 4 lies in the cell to the end; the small inputs leave no trace.",
  },
  forget: {
    w: [20, 0, -15, 0, 0, 2, 2, 0, 0, 0, 0, 10], x: at({ 4: 1 }, hum),
    says: "The cell of keep, with a forget bias of 2 in place of 10. Each step keeps σ(2) = 88 % of it.",
    here: "Of what is written at step 4, half is gone after five and a half steps.",
  },
  count: {
    w: [20, 0, -10, 0, 0, 10, 0, 0, 3, 0, 0, 10], x: at({ 3: 1, 6: 1, 7: 1, 11: 1, 15: 1, 16: 1, 17: 1, 21: 1 }),
    says: "Each input of 1 opens the input gate for one step, which adds 0.995 to the cell.",
    here: "The cell counts to eight. The hidden state, squashed, differs by 0.0007 between four and eight.",
  },
  "count again": {
    w: [20, 0, -10, 20, 0, 10, 0, 0, 3, 0, 0, 10], x: at({ 2: 1, 4: 1, 6: 1, 10: -1, 13: 1, 15: 1, 19: -1, 22: 1 }),
    says: "The counter, with a forget gate that listens: an input of −1 shuts it for one step, and the count starts again.",
    here: "It counts to three, to two, and to one.",
  },
  latch: {
    w: [20, -20, -10, 20, 0, 10, 0, 0, 3, 0, 0, 10], x: at({ 3: 1, 6: 1, 9: 1, 13: -1, 17: 1, 21: -1 }),
    says: "A switch: an input of 1 sets the cell, −1 clears it. Once it is set, the hidden state keeps the input gate shut.",
    here: "The second 1 and the third add no more than 0.006 each.",
  },
  "show when asked": {
    w: [-20, 0, -10, 0, 0, 10, 0, 0, 3, 20, 0, -10], x: at({ 3: -1, 5: -1, 12: 1, 19: 1 }),
    says: "An input of −1 is counted, an input of 1 asks; at all other steps the output gate is shut.",
    here: "The cell holds its two throughout. The hidden state shows tanh(c), 0.96, at steps 12 and 19, and else nothing.",
  },
  average: {
    w: [0, 0, -2, 0, 0, 2, 1, 0, 0, 0, 0, 10], x: at({}, k => (k > 4 && k < 15 ? 1 : k > 17 ? -1 : 0)),
    says: "Keep 88 %, write 12 %: the two gates add up to 1, and the cell follows tanh(x) with a half-life of five and a half steps.",
    here: "After ten steps at 1 it has come to 0.55 of a possible 0.76.",
  },
  "nothing set": {
    w: [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], x: at({ 4: 1, 12: -1 }),
    says: "All gates stand at ½, as in a layer whose weights are all near 0. A place to begin a cell of your own.",
    here: "What is written is halved at every step.",
  },
};
const equal = (a, b) => String(a) === String(b);

function start(host) {
  const state = { w: [...PRESETS.keep.w], x: [...PRESETS.keep.x], t: 4 };
  let steps, begun = "keep", width = 0;

  // --- what is computed

  function compute() {
    const column = k => Float64Array.from([0, 1, 2, 3], gate => state.w[3 * gate + k]);
    const p = { weight_ih: column(0), weight_hh: column(1), bias_ih: column(2), bias_hh: new Float64Array(4) };
    steps = lstm.forward({ unit: "LSTM", inputSize: 1, hiddenSize: 1, p }, state.x.map(x => [x]));
  }

  // --- the drawing: x, in which one draws, and below it all that follows from it

  const left = 34, right = 4, xHeight = 72;
  const pen = svg("svg", { class: "lab-pen", height: xHeight + 32, role: "img" });
  const trace = svg("svg", { class: "lab-trace", role: "img" });
  const pictures = html("div", {}, pen, trace);
  const rows = [];

  const X = k => left + (width - left - right) * k / T;

  function panel(symbol, name, colour, height, y, hint = "") {
    const row = {
      y, height,
      bars: svg("path", { class: `lab-bars lab-${colour}` }), zero: svg("path", { class: "lab-axis" }),
      ticks: svg("g", {}), value: svg("text", { y: y - 7, "text-anchor": "end" }),
      mark: svg("rect", { class: "lab-now", y: y - 2, height: height + 4 }),
    };
    row.root = svg("g", {}, row.mark, row.bars, row.zero, row.ticks, row.value,
      svg("rect", { class: `lab-bars lab-${colour}`, x: left, y: y - 17, width: 11, height: 11 }),
      svg("text", { x: left + 17, y: y - 7 },
        svg("tspan", { class: "lab-symbol" }, symbol), ` ${name}`, svg("tspan", { class: "lab-hint" }, hint)));
    return row;
  }

  const input = panel("x", "input", "x", xHeight, 24, ": draw here");
  pen.append(input.root);
  let below = 0;
  for (const [symbol, name, colour, , height] of PANELS) {
    rows.push(panel(symbol, name, colour, height, below + 24));
    below += height + 30;
  }
  trace.setAttribute("height", below);
  trace.append(...rows.map(row => row.root));

  function bars(row, values, [low, high]) {
    const Y = v => row.y + row.height * (high - v) / (high - low), gap = Math.min(2, (X(1) - X(0)) / 6);
    const bar = (v, k) => `M${X(k) + gap} ${Y(0)}V${Y(v)}H${X(k + 1) - gap}V${Y(0)}Z`;
    row.bars.setAttribute("d", values.map(bar).join(""));
    row.zero.setAttribute("d", `M${left} ${Y(0)}H${width - right}`);
    const shown = [high, low].concat(Y(0) - Y(high) > 16 && Y(low) - Y(0) > 16 ? [0] : []);
    row.ticks.replaceChildren(...shown.flatMap(v => [
      svg("path", { class: "lab-axis", d: `M${left - 4} ${Y(v)}h4` }),
      svg("text", { x: left - 7, y: Y(v) + 5, "text-anchor": "end" }, number(v, 0)),
    ]));
    row.value.setAttribute("x", width - right);
    row.value.textContent = number(values[state.t - 1]);
    row.mark.setAttribute("x", X(state.t - 1));
    row.mark.setAttribute("width", X(1) - X(0));
  }

  function drawPictures() {
    if (!width) return;
    pen.setAttribute("viewBox", `0 0 ${width} ${xHeight + 32}`);
    trace.setAttribute("viewBox", `0 0 ${width} ${below}`);
    bars(input, state.x, [-1, 1]);
    PANELS.forEach(([symbol, , , range], k) => {
      const values = steps.map(s => s[symbol][0]);
      bars(rows[k], values, range ?? around(values));
    });
    const end = steps[T - 1];
    pen.setAttribute("aria-label", `Input x over ${T} steps. ${inWords(state.x)}`);
    trace.setAttribute("aria-label", `Gates, cell state and hidden state over ${T} steps. ` +
      `The cell state ends at ${number(end.c[0])}, the hidden state at ${number(end.h[0])}.`);
  }

  // Whole numbers around 0 and all values; a rounding error below 0 needs no room.
  function around(values) {
    const low = Math.floor(Math.min(0, ...values) + 0.01), high = Math.ceil(Math.max(0, ...values) - 0.01);
    return low === 0 && high === 0 ? [0, 1] : [low, high];
  }

  const inWords = xs => {
    const large = xs.map((x, k) => [x, k + 1]).filter(([x]) => Math.abs(x) > 0.5).map(([x, k]) => `${number(x)} at step ${k}`);
    return large.length ? `Large at: ${large.join(", ")}.` : "Nowhere larger than one half.";
  };

  // --- drawing with a pointer; a stroke that skips steps is filled in. A finger that moves up or down scrolls the page
  // (the browser then cancels the stroke), so with a finger nothing is drawn before it moves sideways or is lifted.

  let stroke = null;
  const place = (event, picture) => {
    const box = picture.getBoundingClientRect(), k = Math.floor((event.clientX - box.left - left) / (X(1) - X(0)));
    const v = 1 - 2 * (event.clientY - box.top - input.y) / xHeight;
    return { k: Math.max(0, Math.min(T - 1, k)), v: Math.max(-1, Math.min(1, Math.round(v * 20) / 20)) };
  };
  function drawn(event) {
    const { k, v } = place(event, pen), from = stroke.last ?? { k, v }, n = Math.max(1, Math.abs(k - from.k));
    if (!stroke.last) remember("stroke", 0);
    for (let j = 0; j <= n; j++) {
      state.x[Math.round(from.k + (k - from.k) * j / n)] = Math.round((from.v + (v - from.v) * j / n) * 20) / 20;
    }
    stroke.last = { k, v };
    state.t = k + 1;
    update();
  }
  pen.addEventListener("pointerdown", event => {
    if (event.button !== 0 || !event.isPrimary) return;
    stroke = { id: event.pointerId, last: null, x: event.clientX, y: event.clientY };
    pen.setPointerCapture(event.pointerId);
    if (event.pointerType !== "touch") drawn(event);
  });
  const mine = event => stroke?.id === event.pointerId;
  const sideways = event => Math.abs(event.clientX - stroke.x) > Math.max(6, Math.abs(event.clientY - stroke.y));
  pen.addEventListener("pointermove", event => { if (mine(event) && (stroke.last || sideways(event))) drawn(event); });
  pen.addEventListener("pointerup", event => { if (mine(event)) { drawn(event); stroke = null; } });
  pen.addEventListener("pointercancel", event => { if (mine(event)) stroke = null; });
  trace.addEventListener("click", event => { state.t = place(event, trace).k + 1; update(); });

  // --- what can be undone: the weights and the input as they were; changes of one kind within `pause` ms are one

  const before = [];
  let last = { kind: "", time: 0 };
  function remember(kind, pause = 1000) {
    const time = performance.now();
    if (kind !== last.kind || time - last.time > pause) before.push({ w: [...state.w], x: [...state.x], begun });
    if (before.length > 200) before.shift();
    last = { kind, time };
  }
  const undo = button("Undo", () => {
    const { w, x, begun: name } = before.pop();
    Object.assign(state, { w, x });
    begun = name;
    last.kind = "";
    update("outcome");
  });

  // --- the same by keyboard: a step, and the input at this step

  const step = slider({ label: "Step", min: 1, max: T, step: 1, value: state.t, change: t => { state.t = t; update(); } });
  const value = slider({
    label: "x at this step", min: -1, max: 1, step: 0.05, value: 0, show: v => number(v),
    change: v => { remember(`x${state.t}`); state.x[state.t - 1] = v; update(); },
  });
  const empty = button("Clear the input", () => { remember("clear", 0); state.x.fill(0); update("outcome"); });

  // --- weights

  const digits = k => (LIMITS[k] === CANDIDATE ? 2 : 1);
  const weights = LIMITS.map((limits, k) => slider({
    label: k % 3 === 2 ? "bias" : html("span", {}, html("span", { class: "lab-weight" }, "weight "), k % 3 ? "on h" : "on x"),
    ...limits, value: state.w[k], show: v => number(v, digits(k)),
    change: v => { remember(`w${k}`); state.w[k] = v; update("outcome"); },
  }));
  const groups = GATES.map(([symbol, name, colour], k) => html("fieldset", { class: `lab-gate lab-${colour}` },
    html("legend", {}, html("i", {}, symbol), ` ${name}`), ...weights.slice(3 * k, 3 * k + 3).map(w => w.root)));

  // --- the six equations, with the numbers of the chosen step

  const sub = (letter, index) => html("span", {}, html("i", {}, letter), html("sub", {}, index));
  const squash = symbol => (symbol === "g" ? "tanh" : "σ");
  const equations = PANELS.map(([symbol, , colour]) => {
    const filled = html("span", { class: "lab-filled" });
    const general = "ifgo".includes(symbol)
      ? [sub(symbol, "t"), ` = ${squash(symbol)}(`, sub("w", `i${symbol}`), " ", sub("x", "t"), " + ",
        sub("w", `h${symbol}`), " ", sub("h", "t−1"), " + ", sub("b", symbol), ")"]
      : symbol === "c"
        ? [sub("c", "t"), " = ", sub("f", "t"), " ", sub("c", "t−1"), " + ", sub("i", "t"), " ", sub("g", "t")]
        : [sub("h", "t"), " = ", sub("o", "t"), " tanh(", sub("c", "t"), ")"];
    const root = html("li", { class: `lab-${colour}` }, html("span", { class: "lab-general" }, ...general), filled);
    return { symbol, filled, root };
  });

  function fill() {
    const s = steps[state.t - 1], x = s.x[0], last = { h: s.last.h[0], c: s.last.c[0] };
    const three = v => number(v, 3), plus = (v, n) => `${v < 0 ? "−" : "+"} ${number(Math.abs(v), n)}`;
    const { i, f, g, o, c, h } = Object.fromEntries([..."ifgoch"].map(name => [name, s[name][0]]));
    const numbers = {
      c: `= ${three(f)} × ${three(last.c)} ${g < 0 ? "−" : "+"} ${three(i)} × ${three(Math.abs(g))} = ${three(c)}`,
      h: `= ${three(o)} × tanh(${three(c)}) = ${three(h)}`,
    };
    [..."ifgo"].forEach((symbol, gate) => {
      const [wx, wh, b] = state.w.slice(3 * gate, 3 * gate + 3), n = digits(3 * gate), squashed = squash(symbol);
      const terms = `${number(wx, n)} × ${number(x)} ${plus(wh, n)} × ${three(last.h)} ${plus(b, n)}`;
      const sum = number(wx * x + wh * last.h + b);
      numbers[symbol] = `= ${squashed}(${terms}) = ${squashed}(${sum}) = ${three(s[symbol][0])}`;
    });
    for (const { symbol, filled } of equations) filled.textContent = numbers[symbol];
  }

  // --- all steps as a table, for those who would rather read than look

  const body = html("tbody", {}), columns = [..."xifgoch"];
  const table = html("details", { class: "lab-all", ontoggle: () => list() }, html("summary", {}, "All steps as a table"),
    html("div", { class: "lab-scroll", tabindex: 0, role: "region", "aria-label": "All steps" },
      html("table", { class: "lab-table" },
        html("thead", {}, html("tr", {}, ...["step", ...columns].map(name => html("th", { scope: "col" }, name)))), body)));
  function list() {
    if (!table.open) return;
    body.replaceChildren(...steps.map((s, k) => html("tr", {},
      html("th", { scope: "row" }, k + 1), ...columns.map(name => html("td", {}, number(s[name][0]))))));
  }

  // --- presets, the link, and what is said

  const mineToKeep = html("input", { type: "checkbox", id: "lab-keep-input" });
  const presets = Object.keys(PRESETS).map(name => button(name, () => {
    remember("preset", 0);
    state.w = [...PRESETS[name].w];
    if (!mineToKeep.checked) state.x = [...PRESETS[name].x];
    begun = name;
    update("outcome");
  }));
  const sentence = html("p", { class: "lab-sentence" }), heading = html("span", {}), live = liveRegion();

  const written = () => `${state.w.map(v => +v.toFixed(2))};${state.x.map(v => +v.toFixed(2))};${state.t}`;
  function restore(text) {
    const [w, x, t] = text.split(";");
    const found = [
      address.numbers(w, LIMITS.map(l => [l.min, l.max])), address.numbers(x, Array(T).fill([-1, 1])),
      address.numbers(t, [[1, T]]),
    ];
    if (found.includes(null)) return false;
    Object.assign(state, { w: found[0], x: found[1], t: Math.round(found[2][0]) });
    begun = null;
    return true;
  }

  // After a change of step or input its numbers are said; after one of the weights, what became of the last step.
  let heard = null;
  function spoken(about) {
    const s = steps[state.t - 1], end = steps[T - 1], now = { c: number(end.c[0]), h: number(end.h[0]) }, was = heard ?? now;
    heard = now;
    return about === "step"
      ? `Step ${state.t}: x ${number(s.x[0])}, ${[..."ifgoch"].map(name => `${name} ${number(s[name][0])}`).join(", ")}.`
      : `At step ${T}: cell state ${now.c}, was ${was.c}; hidden state ${now.h}, was ${was.h}.`;
  }

  function update(about = "step", keep = true) {
    compute();
    drawPictures();
    fill();
    list();
    step.set(state.t);
    value.set(state.x[state.t - 1]);
    weights.forEach((w, k) => w.set(state.w[k]));
    const known = Object.keys(PRESETS).find(name => equal(PRESETS[name].w, state.w));
    Object.keys(PRESETS).forEach((name, k) => presets[k].setAttribute("aria-pressed", name === known));
    sentence.textContent = known
      ? PRESETS[known].says + (equal(PRESETS[known].x, state.x) ? ` ${PRESETS[known].here}` : "")
      : `A cell of your own${begun ? `, begun from "${begun}"` : ""}.`;
    heading.textContent = `The six equations at step ${state.t}`;
    undo.disabled = before.length === 0;
    if (keep) {
      address.write("gates", written());
      live.say(() => spoken(about));
    } else spoken(about);
  }

  host.replaceChildren(
    html("div", { class: "lab-presets", role: "group", "aria-label": "Presets" }, ...presets),
    html("p", { class: "lab-check" }, mineToKeep, html("label", { for: "lab-keep-input" }, " Presets leave my input as it is")),
    sentence, pictures, html("div", { class: "lab-gates" }, ...groups),
    html("div", { class: "lab-steps" }, step.root, value.root),
    html("div", { class: "lab-buttons" }, undo, empty, address.copier("gates", written, live)),
    html("p", { class: "lab-heading" }, heading), html("ul", { class: "lab-equations" }, ...equations.map(e => e.root)),
    table, live.root);
  update("step", false);
  onWidth(pictures, now => { width = now; drawPictures(); });
  address.follow("gates", host, live, restore, () => update("step", false));
  laboratory.gates = { PRESETS, state, get steps() { return steps; } };
}

const host = document.getElementById("lab-gates");
if (host) start(host);
}

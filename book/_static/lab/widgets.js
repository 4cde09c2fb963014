// What the laboratories share: elements, sliders, the live region, the state in the address, line charts.
"use strict";
{
function element(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}
const html = (tag, attributes, ...children) => element(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  element(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// A number as text, with a proper minus. Never −0.00.
function number(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
}

// Few digits of a number of any size: 0.0312, 4.5 × 10⁻⁷.
function scientific(value) {
  if (value === 0 || (Math.abs(value) >= 0.001 && Math.abs(value) < 1000)) return String(Number(value.toPrecision(3)));
  const [digits, power] = value.toExponential(1).split("e");
  return `${digits} × 10${[...power.replace("+", "")].map(c => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("")}`;
}

let made = 0;
const newId = () => `lab-${++made}`;

// A labelled slider with its value beside the label; the arrow keys move it, as the browser has it.
function slider({ label, min, max, step, value, show = String, change }) {
  const id = newId(), shown = html("span", { class: "lab-value", "aria-hidden": "true" });
  const input = html("input", { type: "range", id, min, max, step, oninput: () => { tell(); change(Number(input.value)); } });
  const tell = () => {
    shown.textContent = show(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  const set = number => { input.value = number; tell(); };
  set(value);
  return {
    root: html("div", { class: "lab-slider" }, html("label", { for: id }, label), shown, input),
    input, set,
    get value() { return Number(input.value); },
  };
}

// A labelled choice; options are [value, words].
function choice({ label, options, value, change }) {
  const id = newId();
  const select = html("select", { id, onchange: () => change(select.value) },
    ...options.map(([key, words]) => html("option", { value: key }, words)));
  select.value = value;
  return { root: html("div", { class: "lab-choice" }, html("label", { for: id }, label), select), select };
}

const button = (words, press) => html("button", { type: "button", onclick: press }, words);

// A sentence for screen readers, half a second after the last change. `words` is called when it is time to speak.
function liveRegion() {
  const root = html("p", { class: "lab-says", role: "status" });
  let timer;
  return {
    root,
    say(words) {
      clearTimeout(timer);
      timer = setTimeout(() => { root.textContent = words(); }, 500);
    },
  };
}

// The state of each laboratory stands in the address, as #gates=…&gradient=…, the one changed last at the end.
// A place in the page, such as #train-one, is none.
const address = {
  all() {
    let text = location.hash.slice(1);
    try { text = decodeURIComponent(text); } catch { /* a lone %: then it is read as it is */ }
    return new Map(text.split("&").filter(part => part.includes("=")).map(part => part.split("=")));
  },
  read: key => address.all().get(key) ?? null,
  link(key, value) {
    const all = address.all();
    all.delete(key);
    return "#" + [...all.set(key, value)].map(pair => pair.join("=")).join("&");
  },
  timers: {},
  write(key, value) {      // after a pause: browsers refuse an address that changes at every turn
    clearTimeout(address.timers[key]);
    address.timers[key] = setTimeout(() => history.replaceState(null, "", address.link(key, value)), 300);
  },
  // Follows the address now and whenever it changes. `restore` is given the text, and says whether it could read it.
  follow(key, root, live, restore, update) {
    const now = () => {
      const text = address.read(key);
      if (text === null) return;
      if (!restore(text)) live.say(() => "The link could not be read. All is as it was.");
      else update();
      if ([...address.all().keys()].at(-1) === key) root.scrollIntoView({ behavior: "instant" });
    };
    addEventListener("hashchange", now);
    now();
  },
  // A button that puts the address with this state into the clipboard, where the browser lets it.
  copier(key, state, live) {
    const said = words => {
      copy.textContent = words;
      live.say(() => words);
      setTimeout(() => { copy.textContent = "Copy the link"; }, 3000);
    };
    const copy = button("Copy the link", () => {
      history.replaceState(null, "", address.link(key, state()));
      const done = navigator.clipboard?.writeText(location.href) ?? Promise.reject();
      done.then(() => said("Copied"), () => said("It stands in the address bar"));
    });
    return copy;
  },
  // Numbers out of a text that anybody may have written: each within its limits, or null for the whole.
  numbers(text, limits) {
    const found = (text ?? "").split(",").map(part => (part === "" ? NaN : Number(part)));
    const fits = found.length === limits.length && found.every(Number.isFinite);
    return fits ? found.map((value, k) => Math.min(limits[k][1], Math.max(limits[k][0], value))) : null;
  },
};

const calm = matchMedia("(prefers-reduced-motion: reduce)");

// Calls `draw` with the width of a box, now and whenever it changes.
function onWidth(box, draw) {
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.floor(box.clientWidth);
    if (now && now !== width) draw(width = now);
  }).observe(box);
}

// A line chart, as wide as its box, so that its text keeps the page's size. `draw` takes
//   x, y: [from, to]; log: whether y is logarithmic; lines: [{ points: [[x, y], …], as: class }];
//   dots: [[x, y], …]; rules: [{ y, words }], horizontal lines; at: a marked x; xlabel; words: for screen readers.
function chart({ height, ylabel }) {
  const title = html("p", { class: "lab-ylabel" }, ylabel), picture = svg("svg", { class: "lab-chart", height, role: "img" });
  const root = html("div", { class: "lab-plot" }, title, picture);
  let last = null, width = 0;
  const left = 52, right = 10, top = 10, bottom = 44;

  function draw(what = last) {
    last = what;
    if (!what || !width) return;
    const { x, log, lines, dots = [], rules = [], at, xlabel, words } = what;
    const scale = log ? v => Math.log10(Math.max(v, 1e-300)) : v => v;
    const [low, high] = what.y.map(scale), X = v => left + (width - left - right) * (v - x[0]) / (x[1] - x[0] || 1);
    const Y = v => top + (height - top - bottom) * (1 - (scale(v) - low) / (high - low));
    const parts = [];
    for (const { value, text } of log ? decades(low, high) : even(low, high)) {
      parts.push(svg("path", { class: "lab-grid", d: `M${left} ${Y(value)}H${width - right}` }),
        svg("text", { x: left - 6, y: Y(value) + 5, "text-anchor": "end" }, ...text));
    }
    for (const { value, text } of even(...x, Math.floor(width / 90))) {
      parts.push(svg("text", { x: X(value), y: height - bottom + 20, "text-anchor": "middle" }, ...text));
    }
    parts.push(svg("text", { x: width - right, y: height - 4, "text-anchor": "end" }, xlabel));
    if (at !== undefined) parts.push(svg("path", { class: "lab-at", d: `M${X(at)} ${top}V${height - bottom}` }));
    for (const { y, words } of rules) {
      parts.push(svg("path", { class: "lab-rule", d: `M${left} ${Y(y)}H${width - right}` }),
        svg("text", { x: width - right - 4, y: Y(y) - 5, "text-anchor": "end", class: "lab-halo" }, words));
    }
    for (const { points, as } of lines) {
      const d = points.map(([px, py], k) => `${k ? "L" : "M"}${X(px).toFixed(1)} ${Y(py).toFixed(1)}`).join("");
      parts.push(svg("path", { class: `lab-line ${as}`, d, "clip-path": `url(#${cut})` }));
    }
    parts.push(...dots.map(([px, py]) => svg("circle", { class: "lab-dot", cx: X(px), cy: Y(py), r: 3 })));
    frame.setAttribute("x", left);
    frame.setAttribute("y", top - 2);
    frame.setAttribute("width", width - left - right);
    frame.setAttribute("height", height - top - bottom + 4);
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("aria-label", words);
    picture.replaceChildren(clip, ...parts);
  }
  const cut = newId(), frame = svg("rect"), clip = svg("clipPath", { id: cut }, frame);
  onWidth(root, now => { width = now; draw(); });
  return { root, draw };
}

// Ticks: [{ value, text }], text as what an SVG text holds.
function even(low, high, most = 4) {
  const raw = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find(m => m * power >= raw), found = [];
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) {
    found.push({ value: k * step, text: [number(k * step, digits)] });
  }
  return found;
}
function decades(low, high) {
  const every = Math.max(1, Math.ceil((high - low) / 5)), found = [];
  for (let k = Math.ceil(low / every) * every; k <= high + 1e-9; k += every) {
    const power = svg("tspan", { dy: -5, class: "lab-power" }, number(k, 0));
    found.push({ value: 10 ** k, text: k === 0 ? ["1"] : k === 1 ? ["10"] : ["10", power] });
  }
  return found;
}

// The names of lines in a drawing: [class, words].
const legend = entries => html("p", { class: "lab-legend" },
  ...entries.map(([as, words]) => html("span", {},
    svg("svg", { width: 28, height: 10, "aria-hidden": "true" }, svg("path", { class: `lab-line ${as}`, d: "M0 5H28" })),
    ` ${words}`)));

globalThis.widgets = { html, svg, number, scientific, slider, choice, button, liveRegion, address, calm, onWidth, chart, legend };
globalThis.laboratory = {};      // what the laboratories hold, for the browser's console
}

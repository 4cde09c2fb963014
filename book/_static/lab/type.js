// Type and watch: a small character LSTM reads along while one types, and shows its gates, its odds and its memory.
"use strict";
{
const { html, svg, number, slider, choice, button, liveRegion, address, calm, onWidth } = widgets;
const MOST = 2000, BACK = 100;             // characters of a text; and so many back its memory is asked of
const SLICE = 8, ASIDE = 1;                // milliseconds of a frame for that; while the reader does something

// --- the network, out of the numbers of reader.js

function decoded({ scale, base64 }) {
  const bytes = Uint8Array.from(atob(base64), sign => sign.charCodeAt(0)), view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 2 }, (_, k) => view.getInt16(2 * k, true) * scale);
}

function built({ sizes: [inputSize, hiddenSize], alphabet, arrays }) {
  const of = name => decoded(arrays[name]), table = of("embed.weight");
  const p = {
    weight_ih: of("rnn.weight_ih_l0"), weight_hh: of("rnn.weight_hh_l0"),
    bias_ih: of("rnn.bias_ih_l0"), bias_hh: of("rnn.bias_hh_l0"), weight: of("head.weight"), bias: of("head.bias"),
  };
  const embedded = [...alphabet].map((_, k) => table.subarray(k * inputSize, (k + 1) * inputSize));
  return { unit: "LSTM", inputSize, hiddenSize, p, alphabet, embedded };
}

// What it has not met is read as what is nearest, a space at the last.
const NEAREST = { "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "—": "-" };
const codeOf = (net, sign) => {
  const k = net.alphabet.indexOf(NEAREST[sign] ?? sign);
  return k < 0 ? net.alphabet.indexOf(" ") : k;
};

// p(next) ∝ exp(score / temperature)
function odds(net, h, temperature = 1) {
  const scores = lstm.scores(net, h), most = Math.max(...scores);
  const weights = scores.map(s => Math.exp((s - most) / temperature)), sum = weights.reduce((a, b) => a + b);
  return weights.map(w => w / sum);
}

function drawn(p, random) {
  let left = random();
  const k = p.findIndex(share => (left -= share) < 0);
  return k < 0 ? p.indexOf(Math.max(...p)) : k;        // a rounding at the very end
}

const likeliest = p => [...p.keys()].sort((a, b) => p[b] - p[a]);

// How far two odds are apart: half the sum of all differences, 0 for the same, 1 where nothing is shared.
const apart = (p, q) => p.reduce((sum, share, k) => sum + Math.abs(share - q[k]), 0) / 2;

// What each past character still does: the odds after `count` characters, against those with this one replaced by a
// space (a space or a new line: by an e). One of them in each turn, the newest first.
function* memory(net, steps, codes, count) {
  const before = odds(net, steps[count - 1].h), [space, line, e] = [..." \ne"].map(sign => codeOf(net, sign));
  for (let k = count - 1; k >= Math.max(0, count - BACK); k--) {
    const other = [space, line].includes(codes[k]) ? e : space;
    const xs = [other, ...codes.slice(k + 1, count)].map(code => net.embedded[code]);
    yield [k, apart(before, odds(net, lstm.forward(net, xs, steps[k].last).at(-1).h))];
  }
}

// The chance that a cell is higher at a character of `inside` than at another: the area under its ROC curve.
function area(values, inside) {
  const order = values.map((_, k) => k).sort((a, b) => values[a] - values[b]);
  let sum = 0, count = 0;
  for (let k = 0; k < order.length;) {                 // equal values share the mean of their ranks
    let end = k;
    while (end < order.length && values[order[end]] === values[order[k]]) end++;
    for (const one of order.slice(k, end)) if (inside(one)) { sum += (k + 1 + end) / 2; count++; }
    k = end;
  }
  return (sum - count * (count + 1) / 2) / (count * (values.length - count));
}

// --- what stands there to begin with: Macbeth, from which nothing was learned

const TEXTS = {
  "a page of Macbeth": `BANQUO.
Hold, take my sword.--There's husbandry in heaven;
Their candles are all out:--take thee that too.--
A heavy summons lies like lead upon me,
And yet I would not sleep:--merciful powers,
Restrain in me the cursed thoughts that nature
Gives way to in repose!--Give me my sword.
Who's there?

[Enter Macbeth, and a Servant with a torch.]

MACBETH.
A friend.

BANQUO.
What, sir, not yet at rest? The king's a-bed:
He hath been in unusual pleasure and
Sent forth great largess to your officers:
This diamond he greets your wife withal,
By the name of most kind hostess; and shut up
In measureless content.

`,
  "a question": "Who's there?\n\n",
  "nothing": "",
};

const SHADES = {      // what the text is coloured by: words, class, value of a step
  c: ["cell state c", "cell"], h: ["hidden state h", "hidden"], i: ["input gate i", "input"],
  f: ["forget gate f", "forget"], g: ["candidate g", "candidate"], o: ["output gate o", "output"],
  memory: ["memory", "x"], surprise: ["surprise", "x"],
};
const ROWS = [..."ifgoch"];
const shadeOf = (s, name, k) => (name === "c" ? Math.tanh(s.c[k]) : s[name][k]);
const NAMES = { " ": "space", "\n": "new line" };
const named = sign => NAMES[sign] ?? sign;
const quoted = sign => (sign in NAMES ? `a ${NAMES[sign]}` : `“${sign}”`);
// For those who listen: most voices leave punctuation out, and say E as e.
const ALOUD = {
  ...NAMES, ".": "full stop", ",": "comma", ";": "semicolon", ":": "colon", "?": "question mark", "!": "exclamation mark",
  "'": "apostrophe", '"': "quotation mark", "-": "hyphen", "[": "opening bracket", "]": "closing bracket",
};
const aloud = sign => ALOUD[sign] ?? (/[A-Z]/.test(sign) ? `capital ${sign}` : sign);
const drawnAs = sign => (sign === "\n" ? "↵" : /[\ud800-\udfff]/.test(sign) ? "□" : sign);    // □: half an emoji
const head = names => html("thead", {}, html("tr", {},
  ...names.map(name => (name ? html("th", { scope: "col" }, name) : html("td", {})))));
const percent = p => (p < 0.001 ? "under 0.1 %" : `${number(100 * p, p < 0.0995 ? 1 : 0)} %`);

function start(host) {
  const net = built(reader), H = net.hiddenSize, first = odds(net, new Float64Array(H));
  const LIMITS = [[0, H - 1], [0, Object.keys(SHADES).length - 1], [0.1, 2], [0, 99], [0, MOST]];
  const state = { text: "", at: 0, cell: 62, shade: "c", temperature: 0.7, seed: 1 };
  const steps = [], codes = [];              // steps[k] has just read character k
  let version = 0;                           // of the text
  const after = n => (n ? steps[n - 1].odds : first);
  const live = liveRegion();

  // --- reading: only from where the text has changed

  function read(text) {
    let same = 0;
    while (same < text.length && text[same] === state.text[same]) same++;
    codes.length = steps.length = same;
    for (const sign of text.slice(same).split("")) codes.push(codeOf(net, sign));
    for (const s of lstm.forward(net, codes.slice(same).map(code => net.embedded[code]), steps.at(-1))) {
      s.odds = odds(net, s.h);
      s.bits = -Math.log2(after(steps.length)[codes[steps.length]]);
      steps.push(s);
    }
    state.text = text;
    return same;
  }

  // --- the text, and the same text in colour

  const id = "lab-typed";
  const field = html("textarea", {
    id, rows: 6, maxlength: MOST, spellcheck: "false", autocapitalize: "off", autocomplete: "off", autocorrect: "off",
    oninput: () => { keep("typed"); typed(); },
  });
  const colours = html("div", { class: "lab-colours", role: "img" });
  const scroller = html("div", { class: "lab-typed", tabindex: 0, role: "region", "aria-label": "The text in colour" },
    colours);
  const explained = html("p", {}), counted = html("p", { class: "lab-counted" }), strangers = html("p", {});
  let spans = [], painted = [];

  function respell(same) {
    for (const span of spans.splice(same)) span.remove();
    painted.length = same;
    const added = state.text.slice(same).split("").map((sign, k) =>
      html("span", { "data-k": same + k }, drawnAs(sign) + (sign === "\n" ? sign : "")));
    spans.push(...added);
    colours.append(...added);
  }

  const valueOf = {
    memory: k => Math.sqrt(memories[k] ?? 0),
    surprise: k => Math.min(1, steps[k].bits / 8),
  };
  const value = k => valueOf[state.shade]?.(k) ?? shadeOf(steps[k], state.shade, state.cell);

  function paint() {
    spans.forEach((span, k) => {
      const v = Math.round(100 * value(k)), now = k === state.at - 1, key = `${v}${now}`;
      if (painted[k] === key) return;
      painted[k] = key;
      span.style.setProperty("--lab-v", Math.abs(v) / 100);
      span.className = (v < 0 ? "lab-minus" : "") + (now ? " lab-here" : "");
    });
    colours.className = `lab-colours lab-${SHADES[state.shade][1]}`;
    const here = spans[state.at - 1];
    if (!here) return;
    const top = here.offsetTop, room = scroller.clientHeight;            // in sight, without moving the page
    if (top < scroller.scrollTop || top + 30 > scroller.scrollTop + room) scroller.scrollTop = top - room / 2;
  }

  // --- memory, in slices of a frame, so that the page answers meanwhile

  let memories = [], asked = "", touched = 0;
  for (const kind of ["keydown", "pointerdown"]) {
    addEventListener(kind, () => { touched = performance.now(); }, { capture: true, passive: true });
  }

  function remember() {
    const now = state.shade === "memory" ? `${version} ${state.at}` : "";
    if (now === asked) return;
    asked = now;
    memories = [];
    if (!now || !state.at) return;
    const pieces = memory(net, steps, codes, state.at);
    requestAnimationFrame(function frame() {
      if (now !== asked) return;             // the text or the place is another one by now
      const until = performance.now() + (performance.now() - touched < 200 ? ASIDE : SLICE);
      let next;
      do {
        next = pieces.next();
        if (!next.done) memories[next.value[0]] = next.value[1];
      } while (!next.done && performance.now() < until);
      if (next.done || !calm.matches) paint();
      if (!next.done) return requestAnimationFrame(frame);
      list();
      tell();
    });
  }

  // --- what comes next

  const TOP = 8;
  const rows = Array.from({ length: TOP + 1 }, () => {
    const sign = html("th", { scope: "row" }), bar = html("span", { class: "lab-odds" }), share = html("td", {});
    return { sign, bar, share, root: html("tr", {}, sign, html("td", { class: "lab-share" }, bar), share) };
  });
  const nextHead = html("p", { class: "lab-heading" });
  const next = html("table", { class: "lab-table lab-next" },
    head(["sign", "", "odds"]), html("tbody", {}, ...rows.map(row => row.root)));

  function foretell() {
    const p = after(state.at), came = codes[state.at], order = likeliest(p).slice(0, TOP);
    nextHead.textContent = `What comes after ${state.at ? quoted(state.text[state.at - 1]) : "nothing"}?`;
    rows.forEach((row, n) => {
      const extra = n === TOP, k = extra ? (order.includes(came) ? undefined : came) : order[n];
      row.root.hidden = k === undefined;
      if (k === undefined) return;
      row.sign.textContent = named(net.alphabet[k]) + (k === came ? " ← it came" : "");
      row.bar.style.width = `${100 * p[k]}%`;
      row.share.textContent = percent(p[k]);
    });
  }

  // --- gates and states: all cells after this character, and this cell along the text

  const left = 22, right = 48, tall = 15, gap = 4, room = ROWS.length * (tall + gap);
  const grid = press => {
    const picture = svg("svg", { class: "lab-heat", role: "img", height: room + 22 });
    const box = html("div", {}, picture);
    const all = { box, picture, count: 0 };
    picture.addEventListener("click", event => {
      const k = Math.floor((event.clientX - picture.getBoundingClientRect().left - left) / all.each);
      if (k >= 0 && k < all.count) press(k);
    });
    all.lay = (width, count) => {
      Object.assign(all, { count, each: (width - left - right) / count });
      picture.setAttribute("viewBox", `0 0 ${width} ${room + 22}`);
      all.mark = svg("rect", { class: "lab-frame", y: -2, width: all.each, height: room });
      all.cells = ROWS.map((name, row) => Array.from({ length: count }, (_, k) =>
        svg("rect", { x: left + k * all.each, y: row * (tall + gap), width: all.each, height: tall })));
      all.ends = ROWS.map((name, row) => svg("text", { x: width, y: row * (tall + gap) + 13, "text-anchor": "end" }));
      all.below = Array.from({ length: count }, (_, k) =>
        svg("text", { class: "lab-letter", x: left + (k + 0.5) * all.each, y: room + 13, "text-anchor": "middle" }));
      picture.replaceChildren(...ROWS.map((name, row) => svg("g", { class: `lab-${SHADES[name][1]}` },
        svg("text", { class: "lab-symbol", x: 2, y: row * (tall + gap) + 13 }, name),
        svg("rect", { class: "lab-empty", x: left, y: row * (tall + gap), width: width - left - right, height: tall }),
        ...all.cells[row], all.ends[row])), all.mark, ...all.below);
    };
    all.fill = (stepOf, unitOf, marked, letters) => {
      ROWS.forEach((name, row) => all.cells[row].forEach((rect, k) => {
        const s = stepOf(k), v = s ? shadeOf(s, name, unitOf(k)) : 0;
        rect.setAttribute("fill-opacity", Math.abs(v).toFixed(2));
        rect.setAttribute("class", v < 0 ? "lab-minus" : "");
      }));
      const s = steps[state.at - 1];
      ROWS.forEach((name, row) => { all.ends[row].textContent = s ? number(s[name][state.cell]) : ""; });
      all.below.forEach((text, k) => { text.textContent = letters(k); });
      all.mark.setAttribute("x", left + marked * all.each);
    };
    return all;
  };
  const abreast = grid(k => pick(k));
  const along = grid(k => place(state.at - along.count + 1 + k));
  const abreastHead = html("p", { class: "lab-heading" }), alongHead = html("p", { class: "lab-heading" });

  function heat() {
    const s = steps[state.at - 1];
    abreastHead.textContent = `All ${H} cells after ${s ? quoted(state.text[state.at - 1]) : "nothing"}`;
    alongHead.textContent = `Cell ${state.cell} along the text, up to here`;
    const values = s ? ROWS.map(name => `${name} ${number(s[name][state.cell])}`).join(", ") : "all zero";
    const map = `Heat map: six rows, ${ROWS.join(", ")}, of`, here = `Cell ${state.cell} now: ${values}.`;
    abreast.picture.setAttribute("aria-label", `${map} ${H} cells. ${here}`);
    along.picture.setAttribute("aria-label", `${map} the last ${Math.min(state.at, along.count)} characters. ${here}`);
    if (abreast.count) abreast.fill(() => s, k => k, state.cell, k => (k % 8 ? "" : k));
    if (!along.count) return;
    const from = state.at - along.count;
    along.fill(k => steps[from + k], () => state.cell, along.count - 1, k => drawnAs(state.text[from + k] ?? ""));
  }

  // --- which cells did this character move most?

  const movers = html("div", { class: "lab-buttons" }), moversHead = html("p", { class: "lab-heading" });
  const pick = k => { state.cell = k; update(); };
  function cellButton(k, words) {
    const one = button(words, () => pick(k));
    one.setAttribute("aria-pressed", k === state.cell);
    return one;
  }
  let movedAt = "";
  function moved() {
    const now = `${version} ${state.at}`, s = steps[state.at - 1], by = k => s.c[k] - s.last.c[k];
    if (now === movedAt) return;             // who has chosen one of these buttons keeps them
    movedAt = now;
    moversHead.textContent = `Cells that ${s ? quoted(state.text[state.at - 1]) : "a character"} moved most`;
    const most = s ? [...s.c.keys()].sort((a, b) => Math.abs(by(b)) - Math.abs(by(a))).slice(0, 5) : [];
    movers.replaceChildren(...most.map(k => cellButton(k, `${k}: ${by(k) < 0 ? "" : "+"}${number(by(k))}`)));
  }

  // --- undo, writing on, the presets

  const before = [];
  let last = { kind: "", time: 0 };
  function keep(kind, pause = 1000) {
    const time = performance.now();
    if (kind !== last.kind || time - last.time > pause) before.push([state.text, state.at]);
    if (before.length > 100) before.shift();
    last = { kind, time };
  }
  function put(text, at, keeping = true) {
    field.value = text;
    field.setSelectionRange(at, at);
    typed(keeping);
    const lines = part => part.split("\n").length;
    field.scrollTop = field.scrollHeight * lines(text.slice(0, at)) / lines(text) - field.clientHeight / 2;
  }
  function begin(name, keeping = true) {     // where a direction ends, if there is one
    const text = TEXTS[name], k = text.indexOf("]");
    put(text, k < 0 ? text.length : k, keeping);
  }
  const undo = button("Take back", () => { const was = before.pop(); last.kind = ""; put(...was); });
  const presets = Object.keys(TEXTS).map(name => button(name, () => { keep(name, 0); begin(name); }));

  const LONG = 80;
  const temperature = slider({
    label: "Temperature", min: 0.1, max: 2, step: 0.1, value: state.temperature, show: v => number(v, 1),
    change: v => { state.temperature = v; note(); },
  });
  const seed = slider({
    label: "Seed", min: 0, max: 99, step: 1, value: state.seed,
    change: v => { state.seed = v; note(); },
  });
  function write() {
    const random = lstm.uniform(1e4 * state.seed + state.at), room = Math.min(LONG, MOST - state.text.length);
    let s = steps[state.at - 1], added = "";
    while (added.length < room) {
      const k = drawn(odds(net, s ? s.h : new Float64Array(H), state.temperature), random);
      added += net.alphabet[k];
      [s] = lstm.forward(net, [net.embedded[k]], s);
    }
    keep("write", 0);
    const at = state.at + added.length;
    put(state.text.slice(0, state.at) + added + state.text.slice(state.at), at);
    live.say(() => (added ? `It wrote: ${added}` : "There is no room for more."));
  }

  // --- where is the cell on?

  const sought = { side: "above", level: 2 };
  const side = choice({
    label: "Find where c is", options: [["above", "above"], ["below", "below"]], value: sought.side,
    change: v => { sought.side = v; seek(); },
  });
  const level = slider({
    label: "this value", min: -5, max: 5, step: 0.1, value: sought.level, show: v => number(v, 1),
    change: v => { sought.level = v; seek(); },
  });
  const foundHead = html("p", {}), found = html("ol", { class: "lab-found" });
  function runs() {                          // [from, to] of each place, without the last
    const all = [];
    steps.forEach((s, k) => {
      const c = s.c[state.cell];
      if (sought.side === "above" ? c <= sought.level : c >= sought.level) return;
      if (all.at(-1)?.[1] === k) all.at(-1)[1]++;
      else all.push([k, k + 1]);
    });
    return all;
  }
  function find() {
    const all = runs(), count = all.reduce((sum, [a, b]) => sum + b - a, 0), n = all.length;
    const some = n ? `, in ${n} ${n === 1 ? "place" : "places"}${n > 6 ? "; the six longest:" : ":"}` : ".";
    foundHead.textContent =
      `Cell ${state.cell} is ${sought.side} ${number(sought.level, 1)} at ${count} of ${steps.length} characters${some}`;
    const part = (a, b) => state.text.slice(Math.max(0, a), b).split("").map(drawnAs).join("");
    const longest = all.sort((p, q) => q[1] - q[0] - p[1] + p[0]).slice(0, 6);
    found.replaceChildren(...longest.map(([a, b]) => html("li", {}, html("button", {
      type: "button", onclick: () => { field.focus(); field.setSelectionRange(a, b); place(b, false); },
    }, part(a - 12, a), html("mark", {}, part(a, Math.min(b, a + 60))), b - a > 60 ? "…" : part(b, b + 12)))));
  }
  const seek = () => { find(); live.say(() => foundHead.textContent); };
  const marked = html("div", { class: "lab-buttons lab-marked", role: "status" });
  const which = button("Which cells mark what I have selected?", () => {
    const [a, b] = [field.selectionStart, field.selectionEnd], inside = k => k >= a && k < b;
    if (a === b || b - a === steps.length) {
      marked.replaceChildren("Select some characters of the text first, not all.");
      return;
    }
    const areas = Array.from({ length: H }, (_, k) => area(steps.map(s => s.c[k]), inside)), far = k => Math.abs(areas[k] - 0.5);
    const best = [...areas.keys()].sort((p, q) => far(q) - far(p)).slice(0, 5);
    marked.replaceChildren("AUC: ", ...best.map(k =>
      cellButton(k, `${k}: ${number(0.5 + far(k))}, ${areas[k] < 0.5 ? "lower" : "higher"}`)));
  });

  // --- controls, the link, and what is said

  const cell = slider({ label: "Cell", min: 0, max: H - 1, step: 1, value: state.cell, change: pick });
  const shade = choice({
    label: "Colour by", options: Object.entries(SHADES).map(([name, [words]]) => [name, words]), value: state.shade,
    change: v => { state.shade = v; update(); },
  });

  // Text and numbers of the link: the text in the alphabet of base64 for addresses, since it may hold any sign.
  const written = () => {
    const bytes = new TextEncoder().encode(state.text);
    const text = btoa(Array.from(bytes, b => String.fromCharCode(b)).join(""));
    const numbers = [state.cell, Object.keys(SHADES).indexOf(state.shade), state.temperature, state.seed, state.at];
    return `${numbers};${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
  };
  function restore(link) {
    const [some, text = ""] = link.split(";"), found = address.numbers(some, LIMITS);
    if (!found || !/^[\w-]*$/.test(text)) return false;
    let bytes;
    try { bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/")); } catch { return false; }
    const whole = new TextDecoder().decode(Uint8Array.from(bytes, sign => sign.charCodeAt(0))).slice(0, MOST);
    const [unit, kind, heated, seeded, at] = found;
    Object.assign(state, {
      cell: Math.round(unit), shade: Object.keys(SHADES)[Math.round(kind)],
      temperature: Math.round(10 * heated) / 10, seed: Math.round(seeded),
    });
    temperature.set(state.temperature);
    seed.set(state.seed);
    put(whole, Math.min(whole.length, Math.round(at)), false);
    return true;
  }
  const note = () => address.write("type", written());

  let heard = {};
  function tell() {
    live.say(() => {
      const p = after(state.at), s = steps[state.at - 1], c = s ? number(s.c[state.cell]) : "0";
      const was = heard.cell === state.cell ? `, was ${heard.c}` : "";
      heard = { cell: state.cell, c };
      const likely = likeliest(p).slice(0, 3).map(k => `${aloud(net.alphabet[k])} ${percent(p[k])}`);
      const here = state.at ? `After ${aloud(state.text[state.at - 1])}` : "Before the first character";
      return `${here}: next ${likely.join(", ")}. Cell ${state.cell}: ${c}${was}.${recalled()}`;
    });
  }
  // Of the characters further back than the last four: which one the odds here hang on most?
  function recalled() {
    const old = memories.slice(0, Math.max(0, state.at - 4));
    const most = old.reduce((best, v, k) => (best < 0 || v > old[best] ? k : best), -1);
    if (most < 0) return "";
    const which = `${aloud(state.text[most])}, ${state.at - most} back, matters most`;
    return ` Of the older characters ${which}: ${number(memories[most])}.`;
  }

  const MEANS = {
    memory: "The fuller the colour, the further the odds of the next character move when this one is replaced by a " +
      "space, on a root scale.",
    surprise: "The fuller the colour, the less likely it was: full at 8 bits, or one in 256.",
  };

  const body = html("tbody", {}), columns = [..."cifgoh"];
  const table = html("details", { class: "lab-all", ontoggle: () => list() },
    html("summary", {}, "The last fifty characters as a table"),
    html("div", { class: "lab-scroll", tabindex: 0, role: "region", "aria-label": "The last fifty characters" },
      html("table", { class: "lab-table" }, head(["", "sign", "bits", "memory", ...columns]), body)));
  function list() {
    if (!table.open) return;
    const from = Math.max(0, state.at - 50);
    const row = (s, k) => html("tr", {}, html("td", {}, k + 1), html("th", { scope: "row" }, named(state.text[k])),
      ...[number(s.bits, 1), k in memories ? number(memories[k]) : "–", ...columns.map(name => number(s[name][state.cell]))]
        .map(words => html("td", {}, words)));
    body.replaceChildren(...steps.slice(from, state.at).map((s, k) => row(s, from + k)).reverse());   // the newest first
  }

  function update(keeping = true) {
    remember();
    paint();
    foretell();
    heat();
    moved();
    list();
    find();
    cell.set(state.cell);
    shade.select.value = state.shade;
    for (const one of host.querySelectorAll(".lab-buttons [aria-pressed]")) {
      one.setAttribute("aria-pressed", parseInt(one.textContent) === state.cell);
    }
    undo.disabled = before.length === 0;
    const s = steps[state.at - 1], unit = `Cell ${state.cell}, ${SHADES[state.shade][0]}`;
    const negative = "hcg".includes(state.shade);
    explained.textContent = MEANS[state.shade] ?? `${unit}${state.shade === "c" ? ", as tanh(c)" : ""}: ` +
      `full colour at 1, none at 0${negative ? ", grey below" : ""}.`;
    const mean = steps.reduce((sum, one) => sum + one.bits, 0) / steps.length;
    counted.textContent = s
      ? `The last, ${quoted(state.text[state.at - 1])}, had ${percent(2 ** -s.bits)}: ${number(s.bits, 1)} bits. ` +
        `All ${steps.length} of them: ${number(mean, 2)} bits each.`
      : "Nothing is read yet.";
    const unknown = [...new Set([...state.text])].filter(sign => !net.alphabet.includes(NEAREST[sign] ?? sign));
    strangers.textContent = unknown.length ? `It has never met ${unknown.join(" ")} and reads a space.` : "";
    strangers.hidden = !unknown.length;
    colours.setAttribute("aria-label", `Your text, coloured by: ${SHADES[state.shade][0]}. ` +
      (state.shade in MEANS ? "" : `Cell ${state.cell}. `) + "The table below has the numbers.");
    if (!keeping) return;
    note();
    tell();
  }

  function typed(keeping = true) {
    const same = read(field.value);
    if (same < spans.length || same < state.text.length) {
      version++;
      marked.replaceChildren();              // what was found was found in another text
    }
    respell(same);
    state.at = field.selectionEnd;
    update(keeping);
  }
  function place(at, move = true) {
    at = Math.max(0, Math.min(state.text.length, at));
    if (move) field.setSelectionRange(at, at);
    if (at === state.at) return;
    state.at = at;
    last.kind = "";
    update();
  }
  colours.addEventListener("click", event => {
    const { k } = event.target.dataset;
    if (k !== undefined) place(Number(k) + 1);
  });
  document.addEventListener("selectionchange", () => {
    if (document.activeElement === field && field.value === state.text) place(field.selectionEnd, false);
  });

  host.replaceChildren(
    html("div", { class: "lab-presets", role: "group", "aria-label": "Begin with" }, ...presets),
    html("label", { for: id, class: "lab-heading" }, "Type here, or move the cursor"), field, strangers,
    html("div", { class: "lab-controls" }, cell.root, shade.root), explained, scroller, counted,
    html("div", { class: "lab-charts" }, html("div", {}, nextHead, next),
      html("div", {}, moversHead, movers, abreastHead, abreast.box, alongHead, along.box)),
    html("p", { class: "lab-heading" }, "Let it write"),
    html("div", { class: "lab-controls" }, temperature.root, seed.root),
    html("div", { class: "lab-buttons" },
      button(`Write ${LONG} characters`, write), undo, address.copier("type", written, live)),
    html("p", { class: "lab-heading" }, "Search"), html("div", { class: "lab-controls" }, side.root, level.root),
    foundHead, found, html("div", { class: "lab-buttons" }, which), marked, table, live.root);
  begin("a page of Macbeth", false);
  onWidth(abreast.box, now => { abreast.lay(now, H); heat(); });
  onWidth(along.box, now => { along.lay(now, Math.floor((now - left - right) / 11)); heat(); });
  address.follow("type", host, live, restore, () => {});
  laboratory.type = {
    TEXTS, net, state, steps, runs, area, odds: () => after(state.at),
    get memories() { return memories; }, memory: () => [...memory(net, steps, codes, state.at)],
  };
}

const host = document.getElementById("lab-type");
if (host) start(host);
}

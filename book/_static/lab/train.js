// Train one: a recurrent network of up to 32 units, trained in the page. The work is cut into pieces of one sequence,
// and of each frame it gets a few milliseconds, and hardly any while the reader does something: so the page answers.
"use strict";
{
const { html, number, scientific, slider, choice, button, liveRegion, address, calm, chart, legend } = widgets;
const BATCH = 16, SLICE = 10, ASIDE = 1;   // sequences in a step of training; milliseconds of work in a frame

let touched = 0;                           // when the reader last did something
for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"]) {
  addEventListener(kind, () => { touched = performance.now(); }, { capture: true, passive: true });
}

// make(T, random) gives a sequence: inputs xs, and ys, the answer of each step or null where none is asked for.
// chance: the mean square error of the best answer that looks at nothing.
const TASKS = {
  adding: {
    words: "adding", inputs: 2, chance: 1 / 6, answers: () => 1,
    says: "Adding. Each step shows a number between 0 and 1 and a mark; the mark is 1 at one step of the first half and at " +
      "one of the second, else 0. After the last step: the sum of the two marked numbers. Always to say 1 costs 1/6.",
    make(T, random) {
      const half = Math.floor(T / 2), marks = [Math.floor(random() * half), half + Math.floor(random() * (T - half))];
      const xs = Array.from({ length: T }, (_, t) => [random(), marks.includes(t) ? 1 : 0]);
      return { xs, ys: xs.map((_, t) => (t === T - 1 ? xs[marks[0]][0] + xs[marks[1]][0] : null)) };
    },
  },
  latch: {
    words: "latch", inputs: 2, chance: 1, answers: () => 1,
    says: "Latch. The first step shows a sign, +1 or −1, the others 0; beside it runs noise from the standard normal " +
      "distribution. After the last step: the sign. Always to say 0 costs 1.",
    make(T, random) {
      const sign = random() < 0.5 ? -1 : 1;
      const xs = Array.from({ length: T }, (_, t) => [t === 0 ? sign : 0, lstm.normal(random)]);
      return { xs, ys: xs.map((_, t) => (t === T - 1 ? sign : null)) };
    },
  },
  echo: {
    words: "echo", inputs: 1, chance: 1, lag: T => Math.floor(T / 4), answers: T => T - Math.floor(T / 4),
    says: "Echo. Each step shows +1 or −1, at random. At every step, from the moment it can be known: what was shown a " +
      "quarter of the length before. Always to say 0 costs 1.",
    make(T, random) {
      const lag = TASKS.echo.lag(T), xs = Array.from({ length: T }, () => [random() < 0.5 ? -1 : 1]);
      return { xs, ys: xs.map((_, t) => (t < lag ? null : xs[t - lag][0])) };
    },
  },
};

const UNITS = ["LSTM", "GRU", "RNN"], RATES = [0.001, 0.003, 0.01, 0.03, 0.1], CLIPS = [0.1, 1, 10, Infinity];
const LIMITS = {
  task: [0, 2], unit: [0, 2], units: [1, 32], length: [4, 100], bias: [-2, 8], rate: [0, 4], clip: [0, 3], seed: [0, 99],
};
const AT_FIRST = { task: 1, unit: 0, units: 16, length: 20, bias: 1, rate: 2, clip: 1, seed: 0 };

// One training: `pieces` never ends, and yields after each sequence, so that one sequence is the longest wait.
function training(state) {
  const task = Object.values(TASKS)[state.task], T = state.length, random = lstm.uniform(state.seed);
  const net = lstm.network(UNITS[state.unit], task.inputs, state.units, random, state.bias), adam = new lstm.Adam(net, 0);
  const made = { task, net, losses: [], norm: 0, test: task.make(T, lstm.uniform(state.seed + 1000)) };
  made.pieces = (function* () {
    for (;;) {
      const grads = lstm.like(net);
      let loss = 0;
      for (let n = 0; n < BATCH; n++) {
        const { xs, ys } = task.make(T, random);        // new ones in each step: none is seen twice
        loss += lstm.learn(net, xs, ys, BATCH * task.answers(T), grads);
        if (n < BATCH - 1) yield false;
      }
      made.norm = lstm.clip(grads, CLIPS[state.clip]);
      adam.rate = RATES[state.rate];
      adam.step(grads);
      made.losses.push(loss);
      yield true;
    }
  })();
  return made;
}

// What is shown of a network: its answers, its states, and the gradient by lag, one unit in each piece.
function* probe(made) {
  const steps = lstm.forward(made.net, made.test.xs), squares = new Float64Array(steps.length);
  for (let unit = 0; unit < made.net.hiddenSize; unit++) {
    lstm.addLags(made.net, steps, unit, squares);
    yield;
  }
  made.steps = steps;
  made.lags = Array.from(squares, s => Math.sqrt(s / squares[0]));
}

// Means of consecutive losses, so that a long curve has no more points than there is room for.
function thinned(losses, most = 160) {
  const every = Math.ceil(losses.length / most), points = [];
  for (let k = 0; k < losses.length; k += every) {
    const some = losses.slice(k, k + every);
    points.push([k + some.length, some.reduce((sum, l) => sum + l) / some.length]);
  }
  return points;
}

function trainer(key, name, first, into) {
  const state = { ...first };
  let made, going = false, looking = null, shownAt = 0, saidAt = 0;

  // --- controls

  const live = liveRegion(), sentence = html("p", {}), counted = html("p", { class: "lab-counted" });
  const set = (name, again = true) => v => {
    state[name] = Number(v);
    if (again) reset();
    keep();
  };
  const some = (name, label, options, again) =>
    choice({ label, options: options.map((words, k) => [k, words]), value: state[name], change: set(name, again) });
  const much = (name, label, step = 1, show = String) =>
    slider({ label, min: LIMITS[name][0], max: LIMITS[name][1], step, value: state[name], show, change: set(name) });
  const control = {
    task: some("task", "Task", Object.values(TASKS).map(task => task.words)),
    unit: some("unit", "Network", UNITS),
    rate: some("rate", "Learning rate", RATES, false),
    clip: some("clip", "Clip at norm", CLIPS.map(c => (c === Infinity ? "never" : c)), false),
    units: much("units", "Units"), length: much("length", "Length"),
    bias: much("bias", "Forget bias", 0.5, v => number(v, 1)), seed: much("seed", "Seed"),
  };
  const go = button("Start", () => { going = !going; drive(); });
  const one = button("Step", () => {
    going = false;
    while (!made.pieces.next().value);
    look(true);
    tell();
  });
  const again = button("Reset", () => { reset(); tell(); });

  // --- pictures

  const loss = chart({ height: 210, ylabel: "Loss" });
  const lags = chart({ height: 210, ylabel: "Gradient by lag, relative to lag 0" });
  const answer = chart({ height: 190, ylabel: "A test sequence: what is said; dots: what is right" });
  const hidden = chart({ height: 190, ylabel: "Its hidden states" });
  const decades = values => [10 ** Math.floor(Math.log10(Math.min(...values)) - 1e-9), 10 ** Math.ceil(Math.log10(Math.max(...values)))];

  function draw() {
    const { task, test, steps, losses } = made, T = state.length, n = losses.length;
    const as = `lab-${UNITS[state.unit].toLowerCase()}`, points = thinned(losses), chance = scientific(task.chance);
    loss.draw({
      x: [0, Math.max(20, n)], y: decades([task.chance, ...points.map(([, l]) => l)]), log: true,
      xlabel: "steps of training", lines: [{ points, as }], rules: [{ y: task.chance, words: "chance" }],
      words: "Loss over the steps of training, logarithmic. " +
        (n ? `After ${n} steps: ${scientific(recent())}. Chance: ${chance}.` : `Not trained yet. Chance: ${chance}.`),
    });
    const felt = made.lags.map((v, k) => [k, Math.max(v, Number.MIN_VALUE)]);
    lags.draw({
      x: [0, T - 1], y: decades([0.1, 1, ...felt.map(([, v]) => v)]), log: true,
      xlabel: "lag", lines: [{ points: felt, as }],
      words: `Gradient of the last hidden state by lag, logarithmic. At lag ${T - 1}: ${scientific(made.lags[T - 1])} of lag 0.`,
    });
    const said = steps.map((s, t) => [t + 1, lstm.readOut(made.net, s.h)]);
    const right = test.ys.map((y, t) => [t + 1, y]).filter(([, y]) => y !== null);
    const wide = Math.max(1.2, ...[...right, ...said].map(([, y]) => Math.abs(y)));
    answer.draw({
      x: [1, T], y: [-wide, wide], xlabel: "step", lines: [{ points: said, as }], dots: right,
      words: `Answer at the last step: ${number(said.at(-1)[1])}; right: ${number(right.at(-1)[1])}.`,
    });
    const unit = k => ({ points: steps.map((s, t) => [t + 1, s.h[k]]), as: "lab-hidden lab-thin" });
    hidden.draw({
      x: [1, T], y: [-1, 1], xlabel: "step", lines: Array.from({ length: state.units }, (_, k) => unit(k)),
      words: `${state.units} hidden states between −1 and 1 over ${T} steps.`,
    });
    const so = n ? `, loss ${scientific(recent())}, gradient norm ${scientific(made.norm)}` : "";
    counted.textContent = `${n} steps${so} (chance ${chance})`;
  }

  const recent = () => made.losses.slice(-20).reduce((sum, l) => sum + l, 0) / Math.min(20, made.losses.length);
  const tell = () => live.say(() => {
    const n = made.losses.length;
    return n ? `${n} steps of training, loss ${scientific(recent())}, chance ${scientific(made.task.chance)}.` : "Not trained yet.";
  });

  function look(now) {
    looking = probe(made);
    if (now) finish();
  }
  function finish() {
    while (!looking.next().done);
    looking = null;
    draw();
  }

  // --- time: a slice of each frame, for training or for the next picture

  function drive() {
    go.textContent = going ? "Pause" : "Start";
    if (!going) { look(true); tell(); return; }
    requestAnimationFrame(function frame(now) {
      if (!going) return;
      const until = performance.now() + (performance.now() - touched < 200 ? ASIDE : SLICE);
      while (performance.now() < until) {
        if (looking) {
          if (looking.next().done) { looking = null; shownAt = now; draw(); break; }
        } else if (made.pieces.next().value && now - shownAt > (calm.matches ? 2000 : 300)) look(false);
      }
      if (now - saidAt > 6000) { saidAt = now; tell(); }
      requestAnimationFrame(frame);
    });
  }

  function reset() {
    going = false;
    go.textContent = "Start";
    made = training(state);
    control.bias.input.disabled = UNITS[state.unit] !== "LSTM";
    sentence.textContent = made.task.says;
    look(true);
  }

  const written = () => Object.values(state).join(",");
  const keep = () => address.write(key, written());
  function restore(text) {
    const found = address.numbers(text, Object.values(LIMITS));
    if (!found) return false;
    Object.keys(state).forEach((name, k) => { state[name] = name === "bias" ? found[k] : Math.round(found[k]); });
    for (const [name, one] of Object.entries(control)) {
      if (one.select) one.select.value = state[name];
      else one.set(state[name]);
    }
    return true;
  }

  const root = html("div", { class: "lab-trainer", role: "group", "aria-label": name },
    html("p", { class: "lab-heading" }, name),
    html("div", { class: "lab-controls" }, ...Object.values(control).map(one => one.root)), sentence,
    html("div", { class: "lab-buttons" }, go, one, again, address.copier(key, written, live)), counted,
    html("div", { class: "lab-charts" }, loss.root, lags.root, answer.root, hidden.root), live.root);
  into.append(root);
  reset();
  address.follow(key, root, live, restore, reset);
  return { state, get made() { return made; } };
}

const host = document.getElementById("lab-train");
if (host) {
  const pair = html("div", {});
  const beside = button("Train another one beside it", () => {
    // The same, but for the forget bias; beside one that has none, an LSTM.
    const { state } = laboratory.train[0], other = UNITS[state.unit] === "LSTM" ? { bias: state.bias === 0 ? 1 : 0 } : { unit: 0 };
    laboratory.train.push(trainer("beside", "Second network", { ...state, ...other }, pair));
    pair.classList.add("lab-two");
    beside.remove();
  });
  host.replaceChildren(pair, html("div", { class: "lab-buttons" }, beside));
  laboratory.train = [trainer("train", "First network", AT_FIRST, pair)];
  laboratory.TASKS = TASKS;
  if (address.read("beside")) beside.click();
}
}

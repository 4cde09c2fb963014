// A recurrent layer with a read-out: forward, backward through time, Adam. All there is, in float64 and plain loops.
//
// Conventions and names are PyTorch's: x, h, c, the gates i, f, g, o (LSTM) and r, z, n (GRU), their blocks stacked in
// this order, two biases that add. A matrix is one array, row after row. H is the hidden size, I the input size.
"use strict";
{
const sigmoid = a => 1 / (1 + Math.exp(-a));
const zeros = n => new Float64Array(n);

// --- one step of each unit, and one step back ------------------------------------------------------------------
//
// `step` gets ax = W_ih x + b_ih and ah = W_hh h + b_hh, the gates' blocks one after another, and the last state. It
// returns the new h (and c) with all that the way back needs.
// `back` gets such a step, dh = ∂L/∂h and dc = ∂L/∂c of its new state. It returns ∂L/∂ax, ∂L/∂ah, and what reaches the
// last state without passing through W_hh.

const UNITS = {
  LSTM: {
    gates: "ifgo",
    step(ax, ah, last, H) {
      const s = { i: zeros(H), f: zeros(H), g: zeros(H), o: zeros(H), c: zeros(H), h: zeros(H) };
      for (let k = 0; k < H; k++) {
        s.i[k] = sigmoid(ax[k] + ah[k]);                              // i = σ(W_ii x + b_ii + W_hi h + b_hi)
        s.f[k] = sigmoid(ax[H + k] + ah[H + k]);                      // f = σ(W_if x + b_if + W_hf h + b_hf)
        s.g[k] = Math.tanh(ax[2 * H + k] + ah[2 * H + k]);            // g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        s.o[k] = sigmoid(ax[3 * H + k] + ah[3 * H + k]);              // o = σ(W_io x + b_io + W_ho h + b_ho)
        s.c[k] = s.f[k] * last.c[k] + s.i[k] * s.g[k];                // c = f ⊙ c_last + i ⊙ g
        s.h[k] = s.o[k] * Math.tanh(s.c[k]);                          // h = o ⊙ tanh(c)
      }
      return s;
    },
    back(s, dh, dc, H) {
      const a = zeros(4 * H), toC = zeros(H);
      for (let k = 0; k < H; k++) {
        const i = s.i[k], f = s.f[k], g = s.g[k], o = s.o[k], shown = Math.tanh(s.c[k]);
        const d = dc[k] + dh[k] * o * (1 - shown * shown);            // ∂L/∂c: directly, and through h = o tanh(c)
        a[k] = d * g * i * (1 - i);                                   // σ′ = σ (1 − σ)
        a[H + k] = d * s.last.c[k] * f * (1 - f);
        a[2 * H + k] = d * i * (1 - g * g);                           // tanh′ = 1 − tanh²
        a[3 * H + k] = dh[k] * shown * o * (1 - o);
        toC[k] = d * f;                                               // the direct path: multiplied by f, no matrix
      }
      return { ax: a, ah: a, h: zeros(H), c: toC };
    },
  },
  GRU: {
    gates: "rzn",
    step(ax, ah, last, H) {
      const s = { r: zeros(H), z: zeros(H), n: zeros(H), h: zeros(H), an: ah.slice(2 * H) };
      for (let k = 0; k < H; k++) {
        s.r[k] = sigmoid(ax[k] + ah[k]);                              // r = σ(W_ir x + b_ir + W_hr h + b_hr)
        s.z[k] = sigmoid(ax[H + k] + ah[H + k]);                      // z = σ(W_iz x + b_iz + W_hz h + b_hz)
        s.n[k] = Math.tanh(ax[2 * H + k] + s.r[k] * s.an[k]);         // n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))
        s.h[k] = (1 - s.z[k]) * s.n[k] + s.z[k] * last.h[k];          // h = (1 − z) ⊙ n + z ⊙ h_last
      }
      return s;
    },
    back(s, dh, dc, H) {
      const ax = zeros(3 * H), ah = zeros(3 * H), toH = zeros(H);
      for (let k = 0; k < H; k++) {
        const r = s.r[k], z = s.z[k], n = s.n[k];
        const d = dh[k] * (1 - z) * (1 - n * n);                      // ∂L/∂(what n's tanh gets)
        ax[k] = ah[k] = d * s.an[k] * r * (1 - r);
        ax[H + k] = ah[H + k] = dh[k] * (s.last.h[k] - n) * z * (1 - z);
        ax[2 * H + k] = d;
        ah[2 * H + k] = d * r;                                        // W_hn h stands behind the reset gate
        toH[k] = dh[k] * z;
      }
      return { ax, ah, h: toH, c: zeros(H) };
    },
  },
  RNN: {
    gates: "h",
    step(ax, ah, last, H) {
      return { h: ax.map((a, k) => Math.tanh(a + ah[k])) };           // h = tanh(W_ih x + b_ih + W_hh h + b_hh)
    },
    back(s, dh, dc, H) {
      const a = dh.map((d, k) => d * (1 - s.h[k] * s.h[k]));
      return { ax: a, ah: a, h: zeros(H), c: zeros(H) };
    },
  },
};

// --- matrices ----------------------------------------------------------------------------------------------------

function affine(W, v, b) {                                            // W v + b
  const out = zeros(b.length), n = v.length;
  for (let row = 0; row < out.length; row++) {
    let sum = b[row];
    for (let k = 0; k < n; k++) sum += W[row * n + k] * v[k];
    out[row] = sum;
  }
  return out;
}

function transposed(W, v, out) {                                      // out += Wᵀ v
  const n = out.length;
  for (let row = 0; row < v.length; row++) {
    for (let k = 0; k < n; k++) out[k] += W[row * n + k] * v[row];
  }
  return out;
}

function outer(u, v, out) {                                           // out += u vᵀ
  const n = v.length;
  for (let row = 0; row < u.length; row++) {
    for (let k = 0; k < n; k++) out[row * n + k] += u[row] * v[k];
  }
}

function add(v, out) {                                                // out += v
  for (let k = 0; k < v.length; k++) out[k] += v[k];
}

// --- a network: one layer, and a linear read-out y = weight · h + bias, of one number or of several ------------------

// Weights as PyTorch draws them: even on (−1/√H, 1/√H). A forget bias is set as the sum of its two.
function network(unit, inputSize, hiddenSize, random, forgetBias = null) {
  const rows = UNITS[unit].gates.length * hiddenSize, limit = 1 / Math.sqrt(hiddenSize);
  const draw = n => zeros(n).map(() => limit * (2 * random() - 1));
  const p = {
    weight_ih: draw(rows * inputSize), weight_hh: draw(rows * hiddenSize), bias_ih: draw(rows), bias_hh: draw(rows),
    weight: draw(hiddenSize), bias: draw(1),
  };
  if (unit === "LSTM" && forgetBias !== null) {
    p.bias_ih.fill(forgetBias, hiddenSize, 2 * hiddenSize);           // the rows of f
    p.bias_hh.fill(0, hiddenSize, 2 * hiddenSize);
  }
  return { unit, inputSize, hiddenSize, p };
}

// Arrays of zeros, one for each of a network's parameters.
const like = net => Object.fromEntries(Object.entries(net.p).map(([name, value]) => [name, zeros(value.length)]));

// The steps over a sequence of inputs (arrays of I numbers), from a state of zeros or from an earlier step.
function forward(net, xs, from = null) {
  const { weight_ih, weight_hh, bias_ih, bias_hh } = net.p, H = net.hiddenSize, steps = [];
  let last = from ?? { h: zeros(H), c: zeros(H) };
  for (const x of xs) {
    const s = UNITS[net.unit].step(affine(weight_ih, x, bias_ih), affine(weight_hh, last.h, bias_hh), last, H);
    steps.push(Object.assign(s, { x, last }));
    last = s;
  }
  return steps;
}

const scores = (net, h) => affine(net.p.weight, h, net.p.bias);
const readOut = (net, h) => scores(net, h)[0];

// Back through time. given[t] is ∂L/∂h_t from outside the layer, or nothing. Adds ∂L/∂(each weight) to `grads`, if
// there is one, and returns ∂L/∂x_t of each step.
function backward(net, steps, given, grads = null) {
  const { weight_ih, weight_hh } = net.p, H = net.hiddenSize, x = [];
  let dh = zeros(H), dc = zeros(H);
  for (let t = steps.length - 1; t >= 0; t--) {
    const s = steps[t];
    if (given[t]) add(given[t], dh);
    const d = UNITS[net.unit].back(s, dh, dc, H);
    if (grads) {
      outer(d.ax, s.x, grads.weight_ih);
      outer(d.ah, s.last.h, grads.weight_hh);
      add(d.ax, grads.bias_ih);
      add(d.ah, grads.bias_hh);
    }
    x[t] = transposed(weight_ih, d.ax, zeros(net.inputSize));
    dh = transposed(weight_hh, d.ah, d.h);                            // through the gates of this step to the last h
    dc = d.c;
  }
  return x;
}

// One sequence's share of the mean square error over `count` answers, and its gradients. ys[t] is a number, or null
// at a step that is not scored.
function learn(net, xs, ys, count, grads) {
  const steps = forward(net, xs), given = [];
  let loss = 0;
  steps.forEach((s, t) => {
    if (ys[t] === null) return;
    const off = readOut(net, s.h) - ys[t], d = 2 * off / count;       // L = Σ (y − target)² / count
    loss += off * off / count;
    for (let k = 0; k < s.h.length; k++) grads.weight[k] += d * s.h[k];
    grads.bias[0] += d;
    given[t] = net.p.weight.map(w => d * w);
  });
  backward(net, steps, given, grads);
  return loss;
}

// One unit's share of the gradient by lag: adds the squares of ∂h_T / ∂x_{T−k}, for k = 0, 1, …, to `squares`.
function addLags(net, steps, unit, squares) {
  const T = steps.length, given = [];
  given[T - 1] = zeros(net.hiddenSize);
  given[T - 1][unit] = 1;
  backward(net, steps, given).forEach((dx, t) => {
    for (let k = 0; k < dx.length; k++) squares[T - 1 - t] += dx[k] * dx[k];
  });
}

// How strongly the last hidden state depends on the input of k steps before: ‖∂h_T / ∂x_{T−k}‖ for k = 0, 1, …
// One way back for each unit, as lstm_lib.trace.gradient_by_lag has it.
function gradientByLag(net, steps) {
  const squares = zeros(steps.length);
  for (let unit = 0; unit < net.hiddenSize; unit++) addLags(net, steps, unit, squares);
  return squares.map(Math.sqrt);
}

// --- training ----------------------------------------------------------------------------------------------------

// Scale all gradients so that their common norm is at most `limit`; returns the norm before.
function clip(grads, limit) {
  let square = 0;
  for (const g of Object.values(grads)) for (const d of g) square += d * d;
  const norm = Math.sqrt(square), factor = limit / (norm + 1e-6);
  if (factor < 1) for (const g of Object.values(grads)) for (let k = 0; k < g.length; k++) g[k] *= factor;
  return norm;
}

// Kingma & Ba 2015, with PyTorch's defaults.
class Adam {
  constructor(net, rate, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8) {
    Object.assign(this, { net, rate, beta1, beta2, epsilon, steps: 0, m: like(net), v: like(net) });
  }
  step(grads) {
    const { beta1, beta2, net } = this, t = ++this.steps;
    for (const name of Object.keys(grads)) {
      const p = net.p[name], g = grads[name], m = this.m[name], v = this.v[name];
      for (let k = 0; k < p.length; k++) {
        m[k] = beta1 * m[k] + (1 - beta1) * g[k];                     // mean of the gradients
        v[k] = beta2 * v[k] + (1 - beta2) * g[k] * g[k];              // and of their squares
        const mean = m[k] / (1 - beta1 ** t), square = v[k] / (1 - beta2 ** t);   // both began at 0
        p[k] -= this.rate * mean / (Math.sqrt(square) + this.epsilon);
      }
    }
  }
}

// --- random numbers that a seed decides --------------------------------------------------------------------------

// Even on [0, 1): mulberry32, by Tommy Ettinger, in the public domain.
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

// From the standard normal distribution: Box & Muller 1958. 1 − u is never 0.
const normal = random => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

globalThis.lstm = {
  sigmoid, network, like, forward, scores, readOut, backward, learn, addLags, gradientByLag, clip, Adam, uniform, normal,
};
}

"""How others compute an LSTM, for `make bench BENCH="--peers --threads 1"`: TorchScript, and JAX if it is there.

Each runs on the weights of the same layer and gives the same outputs; in training also the gradients of all
weights and of the input. TorchScript's loop is differentiated as all of PyTorch's competitors are; JAX brings
gradients of its own.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

NAMES = ("TorchScript loop", "JAX scan")


def one_thread() -> None:
    """Hold JAX to one thread: it asks only once, when it is imported.

    The flag is for the threads of one operation; the others come from a pool of as many as there are processors.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ |= {"NPROC": "1", "PJRT_NPROC": "1"}


def of(layer: nn.LSTM, x: Tensor, training: bool) -> dict[str, Callable[[], Tensor]]:
    """One pass of JAX, by name, if it is installed: a call gives the outputs, (seq_len, batch, hidden)."""
    return {NAMES[1]: scanned(layer, x, training)} if importlib.util.find_spec("jax") else {}


def loop(x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
    """An LSTM as TorchScript takes it: all inputs in one product, then a loop over time."""
    h = torch.zeros(x.shape[1], w_hh.shape[1])
    c, out = h, []
    for a in (x @ w_ih.t() + (b_ih + b_hh)).unbind(0):
        i, f, g, o = (a + h @ w_hh.t()).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        out.append(h)
    return torch.stack(out)


def scripted(layer: nn.LSTM) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # PyTorch calls TorchScript old
        script = torch.jit.script(loop)
    return lambda x: script(x, *layer.all_weights[0])


def scanned(layer: nn.LSTM, x: Tensor, training: bool) -> Callable[[], Tensor]:
    import jax
    from jax import numpy as jnp

    def outputs(weights: list, x: jax.Array) -> jax.Array:
        w_ih, w_hh, b_ih, b_hh = weights
        zeros = jnp.zeros((x.shape[1], w_hh.shape[1]))

        def step(state: tuple, a: jax.Array) -> tuple:
            h, c = state
            i, f, g, o = jnp.split(a + h @ w_hh.T, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return jax.lax.scan(step, (zeros, zeros), x @ w_ih.T + (b_ih + b_hh))[1]

    def both(weights: list, x: jax.Array) -> tuple:
        out, pull = jax.vjp(outputs, weights, x)
        return out, pull(jnp.ones_like(out))

    compiled = jax.jit(both if training else outputs)
    weights = [jnp.asarray(w.detach().numpy()) for w in layer.all_weights[0]]
    given = jnp.asarray(x.detach().numpy())

    def run() -> Tensor:
        done = jax.block_until_ready(compiled(weights, given))
        return torch.from_dlpack(done[0] if training else done)

    return run

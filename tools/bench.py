"""`make bench`: how fast every way to compute an LSTM is, against PyTorch's kernel and against the products alone.

Competitors of a shape take turns in one process, round after round and each round in another order: whatever else
the machine does meets them alike, and so does the memory that the one before has left. What counts is the median
of a competitor's times, as a multiple of `torch.nn.LSTM`'s. A *floor* is the time of the matrix products and
nothing else. Results: a table on the screen, and in `results/bench/` a JSON file and a plot for each device.

A processor with AVX-512 is held to AVX2 by `ATEN_CPU_CAPABILITY=avx2` (PyTorch), `ONEDNN_MAX_CPU_ISA=AVX2` and,
for Numba, `NUMBA_CPU_NAME=haswell` with `NUMBA_CPU_FEATURES=+avx2,+fma,+avx,+sse4.2,+bmi,+bmi2`; give
`--out results/bench/avx2` with them. JAX is left out there: no variable was seen to hold it.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import io
import json
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # PyTorch's profiler, which counts bytes here, talks

import torch
from torch import Tensor, nn

import peers
from chapters import ROOT
from lstm_lib import LSTM, cells, files, fused, trace
from lstm_lib.book import notebook, plots

SHAPES = (
    (32, 100, 32, 64),
    (32, 100, 128, 128),
    (64, 200, 128, 256),
    (16, 1000, 64, 128),
    (1, 1000, 64, 128),
    (128, 50, 256, 512),
)
"""(batch, seq_len, input_size, hidden_size)."""

PASSES = ("forward", "training")
"""Without gradients; and forward and backward, the gradient of the input included."""

VARIANTS = {
    "plain": {},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "layer norm": {"layer_norm": True},
    "zoneout": {"zoneout": (0.1, 0.1)},
    "variational dropout": {"variational_dropout": 0.3},
    "weight drop": {"weight_drop": 0.3},
    "without forget": {"without": {"forget"}},
    "without output activation": {"without": {"output_activation"}},
    "residual": {"residual": True},
}
KERNEL = "torch.nn.LSTM"
EXACT = (
    *("textbook loop", "hoisted loop", "compiled step", "compiled loop", "fused", "LSTM: plain", "trace"),
    *peers.NAMES,
)


def loop(weights: list[Tensor], x: Tensor, hoisted: bool, step: Callable) -> Tensor:
    """One layer as a loop over time: the input of each step projected in its turn, or that of all steps before."""
    w_ih, w_hh, b_ih, b_hh = weights
    h = c = x.new_zeros(x.shape[1], w_hh.shape[1])
    out = []
    for a in x @ w_ih.T + (b_ih + b_hh) if hoisted else x:
        a = a + h @ w_hh.T if hoisted else a @ w_ih.T + b_ih + h @ w_hh.T + b_hh
        h, c = step(a, c)
        out.append(h)
    return torch.stack(out)


def step(a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """From the sums in the gates to the next state."""
    i, f, g, o = a.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def sweep(layer: nn.LSTM, x: Tensor) -> Tensor:
    """One layer by the library's engine, which its variants use."""
    cell, zeros = cells.LSTM(), x.new_zeros(x.shape[1], layer.hidden_size)
    return fused.sweep(cell, cell.weights(layer), x, (zeros, zeros))["h"]


def half(f: Callable[[Tensor], Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """The same in bfloat16, as autocast does it."""

    def under_autocast(x: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return f(x)

    return under_autocast


def products(layer: nn.LSTM, x: Tensor, training: bool, times: Callable) -> Callable[[], None]:
    """The matrix products of one pass. ``times(a, b)`` is a bᵀ."""
    (seq_len, batch, _), hidden = x.shape, layer.hidden_size
    w_ih, w_hh = (w.detach() for w in layer.all_weights[0][:2])
    x, h, a = x.detach().flatten(0, 1), x.new_zeros(batch, hidden), x.new_zeros(batch, 4 * hidden)
    sums, states = x.new_zeros(seq_len * batch, 4 * hidden), x.new_zeros(seq_len * batch, hidden)
    w_ih_t, w_hh_t = w_ih.T.contiguous(), w_hh.T.contiguous()

    @torch.no_grad()
    def run() -> None:
        times(x, w_ih)  # W_ih x of all steps
        for _ in range(seq_len):
            times(h, w_hh)  # W_hh h, one step after another
        if training:
            for _ in range(seq_len):
                times(a, w_hh_t)  # the gradient of h
            times(sums, w_ih_t)  # the gradient of x, then those of the weights
            times(x.T, sums.T)
            times(states.T, sums.T)

    return run


def floors(device: str) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The product a bᵀ by each library that this PyTorch can ask: which is the faster depends on the processor."""
    ways = {"floor: torch.mm": lambda a, b: torch.mm(a, b.T)}
    if device == "cpu" and torch.backends.mkldnn.is_available():
        ways["floor: oneDNN"] = lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return ways


def competitors(layer: nn.LSTM, compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Everything that turns x into the outputs of a layer, by name."""
    device, weights = layer.weight_hh_l0.device.type, layer.all_weights[0]
    ways = {
        KERNEL: lambda x: layer(x)[0],
        "textbook loop": lambda x: loop(weights, x, False, step),
        "hoisted loop": lambda x: loop(weights, x, True, step),
        "fused": lambda x: sweep(layer, x),
    }
    if compiled:
        quick, whole = torch.compile(step), torch.compile(loop, fullgraph=True)
        ways["compiled step"] = lambda x: loop(weights, x, True, quick)
        ways["compiled loop"] = lambda x: whole(weights, x, True, step)
    for name, options in VARIANTS.items():
        other = LSTM(layer.input_size, layer.hidden_size, device=device, **options)
        other.load_state_dict(layer.state_dict(), strict=False)
        ways[f"LSTM: {name}"] = lambda x, other=other: other(x)[0]
    ways["trace"] = lambda x: trace.trace(layer, x).h[0, 0]
    if notebook.has_bf16_kernel(device):
        ways["torch.nn.LSTM, bf16"] = half(ways[KERNEL], device)
    ways["fused, bf16"] = half(ways["fused"], device)
    if importlib.util.find_spec("lstm_lib.scan"):
        from lstm_lib.scan import MinLSTM

        for mode in ("sequential", "parallel", "auto"):
            small = MinLSTM(layer.input_size, layer.hidden_size, mode=mode).to(device)
            ways[f"minLSTM: {mode}"] = lambda x, small=small: small(x)[0]
    return ways


def work(
    way: Callable[[Tensor], Tensor], x: Tensor, training: bool, parameters: list[Tensor]
) -> Callable[[], Tensor]:
    """One pass of a competitor."""
    if not training:
        return torch.no_grad()(lambda: way(x))
    x = x.detach().requires_grad_()
    grad = torch.ones(*x.shape[:2], parameters[1].shape[1], device=x.device)

    def run() -> Tensor:
        out = way(x)
        # backward() and not grad(): it reaches all weights, whosever they are
        torch.autograd.backward(out, grad.to(out.dtype))
        return out

    return run


def seconds(run: Callable, device: str) -> float:
    """Wall-clock time of one call."""
    wait = torch.cuda.synchronize if device == "cuda" else nullcontext
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def peak_bytes(run: Callable, device: str) -> int:
    """Most memory that one call holds above what there was before it, as PyTorch's allocator counts."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(
    shape: tuple[int, ...],
    device: str,
    only: list[str],
    compiled: bool,
    budget: float,
    rounds: int,
    memory: bool,
    others: bool = False,
) -> list[dict]:
    """Both passes of all competitors of one shape, as rows of the table."""
    batch, seq_len, size, hidden = shape
    torch.manual_seed(0)
    layer, x = nn.LSTM(size, hidden).to(device), torch.randn(seq_len, batch, size, device=device)
    ways = competitors(layer, compiled)
    if unknown := [word for word in only if not any(name.startswith(word) for name in ways)]:
        raise SystemExit(f"--only: no competitor begins with {', '.join(unknown)}; there are {', '.join(ways)}")
    if only:
        ways = {name: way for name, way in ways.items() if name == KERNEL or name.startswith(tuple(only))}
    if others:
        ways[peers.NAMES[0]] = peers.scripted(layer)
    if seq_len > 100:
        ways.pop("compiled loop", None)  # unrolled, it would compile for minutes
    rows, parameters, dice = [], list(layer.parameters()), random.Random(0)
    for name in PASSES:
        training = name == "training"
        runs = {
            who: work(way, x, training, parameters)
            for who, way in ways.items()
            if not (training and who == "trace")
        }  # a trace has no gradient
        if others:
            runs |= peers.of(layer, x, training)
        expected = runs[KERNEL]().detach()
        first = {}
        for who, run in runs.items():
            start = time.perf_counter()
            out = run().detach()  # warms up, and compiles
            first[who] = time.perf_counter() - start
            if who in EXACT and not torch.allclose(out, expected, atol=1e-3):
                raise SystemExit(f"{who}, {shape}, {device}: another result than {KERNEL}")
        for who, times_ in floors(device).items():
            runs[who] = products(layer, x, training, times_)
            runs[who]()
        times = {who: [] for who in runs}
        gc.collect()
        gc.disable()
        stop = time.perf_counter() + budget / len(PASSES)
        while len(times[KERNEL]) < rounds or time.perf_counter() < stop:
            for who in dice.sample(list(runs), len(runs)):
                times[who].append(seconds(runs[who], device))
        gc.enable()
        kernel = statistics.median(times[KERNEL])
        for who, run in runs.items():
            middle = statistics.median(times[who])
            rows.append(
                {
                    "shape": list(shape),
                    "pass": name,
                    "competitor": who,
                    "seconds": middle,
                    "least": min(times[who]),
                    "greatest": max(times[who]),
                    "rounds": len(times[who]),
                    "ratio": middle / kernel,
                    "peak_bytes": peak_bytes(run, device) if memory and not who.startswith("floor") else None,
                }
                | ({"first_seconds": first[who]} if who.startswith("compiled") else {})
            )
    return rows


def table(rows: list[dict]) -> str:
    """One line per competitor; per shape and pass the multiple of the kernel's time."""
    columns = list(dict.fromkeys((tuple(row["shape"]), row["pass"]) for row in rows))
    names = list(dict.fromkeys(row["competitor"] for row in rows))
    at = {(row["competitor"], tuple(row["shape"]), row["pass"]): row for row in rows}

    def line(name: str, cells_: list[str]) -> str:
        return f"{name:33}" + "".join(f"{cell:>8}" for cell in cells_)

    def values(name: str, key: str, unit: float, digits: str) -> list[str]:
        found = [at.get((name, *column), {}).get(key) for column in columns]
        return ["·" if value is None else f"{value / unit:{digits}}" for value in found]

    shapes = "".join(f"{','.join(map(str, shape)):>16}" for shape, _ in columns[::2])
    lines = [
        f"{'batch,seq_len,input,hidden':33}{shapes}",
        line("", [{"forward": "forward", "training": "train"}[p] for _, p in columns]),
        line(f"{KERNEL}, ms", values(KERNEL, "seconds", 1e-3, ".3g")),
    ]
    lines += [line(name, values(name, "ratio", 1, ".2f")) for name in names]
    if any(row["peak_bytes"] for row in rows):
        lines += [
            "peak memory, MB",
            *(
                line(name, values(name, "peak_bytes", 1e6, ".1f"))
                for name in names
                if not name.startswith("floor")
            ),
        ]
    return "\n".join(lines)


def plot(rows: list[dict], file: io.BytesIO, title: str) -> None:
    """Multiples of the kernel's time in training, one mark per competitor and shape."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    plots.style()
    rows = [row for row in rows if row["pass"] == "training"]
    names = list(dict.fromkeys(row["competitor"] for row in rows))[::-1]
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in rows))
    figure, ax = plt.subplots(figsize=(5.6, 1.8 + 0.24 * len(names)))
    for shape, marker in zip(shapes, "osD^vPX*<>" * len(shapes), strict=False):
        mine = [row for row in rows if tuple(row["shape"]) == shape]
        ax.plot(
            [row["ratio"] for row in mine],
            [names.index(row["competitor"]) for row in mine],
            marker,
            label=", ".join(map(str, shape)),
            markersize=5,
            alpha=0.85,
        )
    ax.axvline(1, color=plots.INK, linewidth=1)
    ax.set(
        xscale="log",
        yticks=range(len(names)),
        yticklabels=names,
        xlabel=f"time of one forward and backward pass, {KERNEL} = 1",
    )
    ax.set_title(title, size="small")
    figure.legend(title="batch, seq_len, input, hidden", loc="outside lower center", ncols=2, fontsize="small")
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def keep(found: dict, folder: Path) -> None:
    """Write the JSON file and the plot, each whole or not at all."""
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    one, picture = min(row["threads"] for row in found["rows"]), io.BytesIO()
    plot(
        [row for row in found["rows"] if row["threads"] == one],
        picture,
        f"{found['device']}, {found['date']}, {one} thread{'s' * (one > 1)}",
    )
    files.write(folder / f"{found['kind']}.svg", picture.getvalue())
    files.write(folder / f"{found['kind']}.json", text)


def compiler() -> str | None:
    """A C++ compiler, which torch.compile needs on a CPU."""
    return next(
        (
            found
            for name in (os.environ.get("CXX"), "g++", "c++", "clang++")
            if name and (found := shutil.which(name))
        ),
        None,
    )


def a_shape(text: str) -> tuple[int, ...]:
    shape = tuple(int(n) if n.strip().isdigit() else 0 for n in text.split(","))
    if len(shape) != 4 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"must be batch,seq_len,input_size,hidden_size, got {text!r}")
    return shape


def main() -> None:
    """Measure what the command line asks for, by default everything."""
    everything = torch.get_num_threads()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape",
        type=a_shape,
        action="append",
        metavar="N,T,I,H",
        help="batch,seq_len,input_size,hidden_size; may be repeated (those of the book)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help=f"competitors whose name begins so, beside {KERNEL} and the floor; may be repeated",
    )
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=sorted({1, everything}),
        help="one run for each number (1, and all)",
    )
    parser.add_argument("--device", nargs="+", choices=("cpu", "cuda"), help="(cpu, and cuda where there is one)")
    parser.add_argument("--seconds", type=float, default=900, help="for everything together (900)")
    parser.add_argument("--rounds", type=int, default=3, help="at least so many, however long they take (3)")
    parser.add_argument("--compile", action="store_true", help="torch.compile'd loops, too: minutes more")
    parser.add_argument("--memory", action="store_true", help="peak memory, too")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="a TorchScript loop and, where it is installed, JAX's scan, too: on the CPU, with --threads 1",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench", help="folder (results/bench)")
    options = parser.parse_args()
    if options.compile and compiler() is None:
        print("--compile: no C++ compiler found, so torch.compile is left out", file=sys.stderr)
        options.compile = False
    if min(options.threads) < 1:
        parser.error("--threads: need 1 or more")
    if "cuda" in (options.device or []) and not torch.cuda.is_available():
        parser.error("--device: this machine has no CUDA device")
    if options.peers:
        if options.threads != [1] or options.device == ["cuda"]:
            parser.error("--peers: JAX is told its threads once, so ask for --threads 1, on the CPU")
        peers.one_thread()
    shapes = options.shape or SHAPES
    runs = [
        (device, threads)
        for device in options.device or ["cpu", *["cuda"] * torch.cuda.is_available()]
        for threads in (options.threads if device == "cpu" else [1])
    ]
    budget = options.seconds / len(runs) / len(shapes)
    found = {}
    for device, threads in runs:
        torch.set_num_threads(threads)
        name = torch.cuda.get_device_name() if device == "cuda" else notebook.processor()
        print(f"\n{name}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}", flush=True)
        rows = []
        for shape in shapes:
            torch._dynamo.reset()
            others = options.peers and device == "cpu"
            rows += measure(
                *(shape, device, options.only, options.compile, budget, options.rounds, options.memory, others)
            )
            print(f"\n{table([row for row in rows if row['shape'] == list(shape)])}", flush=True)
        if len(shapes) > 1:
            print(f"\n{table(rows)}", flush=True)
        entry = found.setdefault(
            device,
            {
                "device": name,
                "kind": device,
                "capability": torch.backends.cpu.get_cpu_capability() if device == "cpu" else None,
                "date": datetime.now(UTC).date().isoformat(),
                "torch": torch.__version__,
                "rows": [],
            },
        )
        entry["rows"] += [{"threads": threads} | row for row in rows]
    for entry in found.values():
        keep(entry, options.out)


if __name__ == "__main__":
    main()

"""`make bench`, on a shape of a moment."""

import importlib.util
import json
import re
import statistics
import subprocess
import sys

import nbformat
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import bench
import peers
from chapters import ROOT
from chapters import notebook as notebook_of
from lstm_lib.book import notebook

SHAPE = (2, 3, 4, 5)


@pytest.fixture
def run(monkeypatch):
    """`make bench` in this process, with these options."""
    threads = torch.get_num_threads()

    def main(*options: object) -> None:
        command = ["bench.py", "--device", "cpu", "--seconds", "0", *map(str, options)]
        monkeypatch.setattr(sys, "argv", command)
        bench.main()

    yield main
    torch.set_num_threads(threads)


def test_every_competitor_is_in_the_table_the_file_and_the_plot(tmp_path):
    """In a process of its own: there, JAX is told its threads before it is imported."""
    options = "--device cpu --seconds 0 --shape 2,3,4,5 --shape 1,2,3,3 --memory --peers --threads 1 --out"
    command = [sys.executable, "tools/bench.py", *options.split(), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert (found["device"], found["torch"]) == (notebook.processor(), torch.__version__)
    assert len(found["date"]) == len("2026-01-01")
    assert {row["threads"] for row in found["rows"]} == {1}
    assert {tuple(row["shape"]) for row in found["rows"]} == {(2, 3, 4, 5), (1, 2, 3, 3)}
    names = {row["competitor"] for row in found["rows"]}
    assert {*bench.VARIANTS} == {name.removeprefix("LSTM: ") for name in names if name.startswith("LSTM: ")}
    assert {"torch.nn.LSTM", "textbook loop", "hoisted loop", "fused", "trace", "fused, bf16"} <= names
    assert {"floor: torch.mm", "TorchScript loop"} <= names
    assert ("JAX scan" in names) == bool(importlib.util.find_spec("jax"))
    assert all(name in done.stdout for name in names)
    assert "textbook loop" in (tmp_path / "cpu.svg").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"cpu.json", "cpu.svg"}
    for row in found["rows"]:
        assert 0 < row["least"] <= row["seconds"] <= row["greatest"]
        assert row["rounds"] >= 3
        assert row["competitor"] != "torch.nn.LSTM" or row["ratio"] == 1
        assert row["competitor"].startswith("floor") or row["peak_bytes"] > 0


def test_one_competitor_alone_stands_beside_kernel_and_floor_for_each_number_of_threads(run, tmp_path):
    run("--shape", "2,3,4,5", "--only", "fused", "--threads", 1, 2, "--out", tmp_path)
    rows = json.loads((tmp_path / "cpu.json").read_text())["rows"]
    assert {row["threads"] for row in rows} == {1, 2}
    for threads in (1, 2):
        names = {row["competitor"] for row in rows if row["threads"] == threads}
        alone = {"torch.nn.LSTM", "fused", "fused, bf16"}
        assert {name for name in names if not name.startswith("floor")} == alone < names


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--shape", "2,3,4"), "must be batch,seq_len,input_size,hidden_size, got '2,3,4'"),
        (("--shape", "2,3,4,0"), "got '2,3,4,0'"),
        (("--shape", "2,3,4,5", "--threads", 0), "--threads: need 1 or more"),
        (("--shape", "2,3,4,5", "--only", "abacus"), "no competitor begins with abacus"),
        (
            ("--shape", "2,3,4,5", "--peers", "--threads", 1, 2),
            "--peers: JAX is told its threads once, so ask for --threads 1",
        ),
    ],
)
def test_bad_options_are_named_and_leave_nothing(run, tmp_path, capsys, options, said):
    with pytest.raises(SystemExit) as end:
        run(*options, "--out", tmp_path / "bench")
    assert end.value.code not in (None, 0)
    assert said in f"{end.value.code}\n{capsys.readouterr().err}"
    assert not (tmp_path / "bench").exists()


def test_without_a_compiler_the_compiled_loop_is_left_out_and_this_is_said(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    run("--compile", "--shape", "1,2,3,3", "--threads", 1, "--out", tmp_path)
    assert "no C++ compiler" in capsys.readouterr().err
    assert "compiled" not in (tmp_path / "cpu.json").read_text()


def test_a_failed_run_keeps_the_last_results(tmp_path, monkeypatch):
    row = {"shape": [2, 3, 4, 5], "pass": "training", "competitor": "torch.nn.LSTM", "ratio": 1.0, "threads": 1}
    found = {"kind": "cpu", "device": "an abacus", "date": "2026-01-01", "rows": [row]}
    bench.keep(found, tmp_path)
    before = (tmp_path / "cpu.json").read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        bench.keep(found | {"rows": [row | {"seconds": float("nan")}]}, tmp_path)
    assert (tmp_path / "cpu.json").read_text() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_wrong_competitor_stops_the_bench(monkeypatch):
    monkeypatch.setattr(bench, "sweep", lambda layer, x: 2 * layer(x)[0])
    with pytest.raises(SystemExit, match=r"fused, .* another result than torch\.nn\.LSTM"):
        bench.measure(SHAPE, "cpu", ["fused"], False, 0, 1, False)


THREADS = """
import time
import torch
from torch import nn
import peers
peers.one_thread()
run = peers.scanned(nn.LSTM(256, 512), torch.randn(50, 128, 256), True)
run()
wall, cpu = time.perf_counter(), time.process_time()
for _ in range(5):
    run()
print((time.process_time() - cpu) / (time.perf_counter() - wall))
"""


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_one_thread_is_one_thread_for_jax_too():
    done = subprocess.run([sys.executable, "-c", THREADS], cwd=ROOT / "tools", capture_output=True, text=True)
    assert float(done.stdout) < 1.3, done.stderr  # a second thread hands out the work


def test_a_peer_in_training_reaches_all_weights():
    batch, seq_len, size, hidden = SHAPE
    layer, x = nn.LSTM(size, hidden), torch.randn(seq_len, batch, size)
    found = []
    for run_ in (
        bench.work(lambda x: layer(x)[0], x, True, [*layer.parameters()]),
        bench.work(peers.scripted(layer), x, True, [*layer.parameters()]),
    ):
        layer.zero_grad()
        run_()
        found.append([p.grad.clone() for p in layer.parameters()])
    torch.testing.assert_close(*found)


def recorded_bench() -> dict:
    return json.loads((ROOT / "results" / "bench" / "cpu.json").read_text(encoding="utf-8"))


def test_the_ratios_of_the_readme_are_those_of_the_recorded_bench():
    recorded = recorded_bench()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{recorded['device']}, one thread, {recorded['date']}" in readme
    assert ("a processor with AVX-512" in " ".join(readme.split())) == (recorded["capability"] == "AVX512")
    table = re.findall(r"^\| (.+?)" + 3 * r" \| ([\d.]+)" + r" \| ([\d.]+|–) \|$", readme, re.MULTILINE)
    assert len(table) > 5
    for name, *told, told_of_two in table:
        training, forward, two = (
            [
                row["ratio"]
                for row in recorded["rows"]
                if (row["competitor"], row["threads"], row["pass"]) == (name, threads, what)
            ]
            for threads, what in ((1, "training"), (1, "forward"), (2, "training"))
        )
        assert len(training) == len(forward) == len(bench.SHAPES)
        mean = statistics.geometric_mean
        assert told == [f"{value:.2f}" for value in (mean(training), max(training), mean(forward))], name
        assert told_of_two == ("–" if name in peers.NAMES else f"{mean(two):.2f}"), name


def test_what_the_readme_tells_of_avx2_is_recorded():
    recorded = json.loads((ROOT / "results" / "bench" / "avx2" / "cpu.json").read_text(encoding="utf-8"))
    assert (recorded["capability"], recorded["device"]) == ("AVX2", recorded_bench()["device"])

    def each(data: dict, name: str, what: str, value: str) -> list[float]:
        rows = [row for row in data["rows"] if (row["competitor"], row["threads"], row["pass"]) == (name, 1, what)]
        assert [tuple(row["shape"]) for row in rows] == [*bench.SHAPES]
        return [row[value] for row in rows]

    def gain(name: str) -> float:
        """How many times longer training takes with AVX2."""
        ways = [each(data, name, "training", "seconds") for data in (recorded, recorded_bench())]
        return statistics.geometric_mean(a / b for a, b in zip(*ways, strict=True))

    said = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "From AVX-512 PyTorch's kernel gains more than the engine does." in said
    assert gain("torch.nn.LSTM") > 1.05 * gain("fused") > 1.05
    training = {
        name: each(recorded, name, "training", "ratio")
        for name in ("fused", *map("LSTM: {}".format, bench.VARIANTS))
    }
    mean = {name: f"{statistics.geometric_mean(values):.2f}" for name, values in training.items()}
    forward = statistics.geometric_mean(each(recorded, "fused", "forward", "ratio"))
    assert (
        f"has `fused` at {mean['fused']} (worst shape {max(training['fused']):.2f}, forward {forward:.2f}), "
        f"peephole at {mean['LSTM: peephole']}, variational dropout at {mean['LSTM: variational dropout']}, "
        f"zoneout at {mean['LSTM: zoneout']} and layer norm at {mean['LSTM: layer norm']} (`results/bench/avx2`"
    ) in said


def test_the_rivals_in_making_it_fast_are_those_of_the_recorded_bench():
    """Its table, and what the text below says of JAX and TorchScript."""
    recorded, nb = recorded_bench(), nbformat.read(notebook_of("implementation/making_it_fast"), 4)
    [text] = [cell.source for cell in nb.cells if cell.cell_type == "markdown" and "| JAX scan |" in cell.source]
    version = recorded["torch"].partition("+")[0]
    assert f"({recorded['device']}, one thread, {recorded['date']}, PyTorch {version})" in text
    head, _, *table = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|"))
    assert [first for first, *_ in table] == ["×".join(map(str, shape)) for shape in bench.SHAPES]
    rows = [row for row in recorded["rows"] if row["threads"] == 1 and row["pass"] == "training"]
    ratios = {(row["competitor"], tuple(row["shape"])): row["ratio"] for row in rows}
    assert set(head[1:]) > {"fused", "hoisted loop", *peers.NAMES}
    for shape, (_, *told) in zip(bench.SHAPES, table, strict=True):
        assert told == [f"{ratios[name, shape]:.2f}" for name in head[1:]], shape
    plain, script, jax, engine, python = (
        [ratios[name, shape] for shape in bench.SHAPES]
        for name in ("LSTM: plain", *peers.NAMES, "fused", "hoisted loop")
    )
    said = " ".join(text.split())

    def ahead(ones: list[float], others: list[float]) -> list[tuple[int, ...]]:
        """The shapes where one way is ahead by more than a tenth."""
        return [s for s, a, b in zip(bench.SHAPES, ones, others, strict=True) if a / b < 0.9]

    assert "strays from 1 by a few per cent" in said
    assert 0.01 < max(abs(ratio - 1) for ratio in plain) < 0.05
    kernel = [1.0] * len(jax)
    assert "The engine is behind the kernel on all six, and nowhere takes twice its time." in said
    assert 1.05 < min(engine) <= max(engine) < 2
    assert "is behind the kernel and the engine on all six" in said
    assert len(ahead(kernel, jax)) == len(ahead(engine, jax)) == 6
    assert "stays within a quarter of the hoisted loop's time" in said
    quotients = [a / b for a, b in zip(script, python, strict=True)]
    assert 0.75 < min(quotients) <= max(quotients) < 1.25


@pytest.mark.parametrize("training", [False, True])
def test_the_floor_makes_the_products_of_the_loop_and_no_others(training):
    """PyTorch's own count of the textbook loop's operations, the input's gradient included."""
    batch, seq_len, size, hidden = SHAPE
    layer, x = nn.LSTM(size, hidden), torch.randn(seq_len, batch, size, requires_grad=training)
    weights, counts = layer.all_weights[0], []
    for f in (
        bench.work(lambda x: bench.loop(weights, x, False, bench.step), x, training, weights),
        bench.products(layer, x, training, lambda a, b: torch.mm(a, b.T)),
    ):
        with FlopCounterMode(display=False) as counter:
            f()
        counts.append(counter.get_total_flops())
    loop, floor = counts
    skipped = 2 * batch * hidden * 4 * hidden  # no gradient for the first h, which is given
    assert floor - loop == (skipped if training else 0)


def test_peak_memory_counts_what_is_held_at_once():
    def twice():
        for _ in range(3):
            torch.ones(1000) + torch.ones(500).sum()  # 4,000 + 2,000, then 4,000 more once the half is gone

    assert bench.peak_bytes(twice, "cpu") == pytest.approx(8000, abs=200)

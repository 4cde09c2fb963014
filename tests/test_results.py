"""The recorded runs, and the runner that records them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jsonschema
import nbformat
import pytest

import run as runner
import workers
from chapters import ROOT, chapters, notebook
from lstm_lib.book.claims import Evidence
from lstm_lib.book.notebook import processor
from notebooks import METADATA
from run import folder_name

SCHEMA = json.loads((ROOT / "results" / "schema.json").read_text(encoding="utf-8"))
RECORDED = sorted(ROOT.glob("results/*/*/*/*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_committed_run_is_whole_and_stands_where_it_says(path):
    run = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(run, SCHEMA)
    parameters = run["parameters"]
    assert path.relative_to(ROOT / "results").as_posix() == (
        f"{folder_name(run['device'])}/{parameters['scale']}/{run['chapter']}.json"
    )
    assert run["chapter"] in chapters()
    for one in run["evidence"]:
        Evidence.from_json(one).check()


def test_spoken_digits_says_what_its_full_run_recorded():
    [text] = [
        " ".join(cell.source.split())
        for cell in nbformat.read(notebook("applications/spoken_digits"), 4).cells
        if cell.cell_type == "markdown" and "at full scale, with 128 units" in cell.source
    ]
    [path] = ROOT.glob("results/*/full/applications/spoken_digits.json")
    run = json.loads(path.read_text(encoding="utf-8"))
    blind, warping = (one["values"][0] for one in run["evidence"])
    assert "with 128 units, 1,500 steps and ten seeds" in text
    assert all("1,500 steps" in one["measure"] for one in run["evidence"])
    assert run["figures"]["spoken-digits-splits"] == 10
    assert "little more than half of these errors" in text
    assert 0.5 < blind < 0.6
    assert "still nearly twice those of warping" in text
    assert 1.8 < warping < 2


def chapter(*cells: str) -> nbformat.NotebookNode:
    code = nbformat.v4.new_code_cell
    return nbformat.v4.new_notebook(
        cells=[
            code('scale = "quick"\ndevice = "auto"\nseed = 0', metadata={"tags": ["parameters"]}),
            code(
                "from lstm_lib.book import notebook\n"
                'run = notebook.start("gates/the_cell", scale=scale, device=device, seed=seed)'
            ),
            *map(code, cells),
        ],
        metadata=METADATA,
    )


@pytest.fixture
def book(tmp_path) -> Path:
    """A book of one small chapter, with the tools."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copytree(ROOT / "lstm_lib", tmp_path / "lstm_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "_toc.yml").write_text("root: intro\nchapters: [{file: notebooks/gates/the_cell}]\n")
    (tmp_path / "notebooks" / "gates").mkdir(parents=True)
    put(tmp_path, 'run.claim("A02", "a number", [seed, 1], below=2)', "run.glue('error', 0.25)")
    return tmp_path


def put(book: Path, *cells: str) -> None:
    nbformat.write(chapter(*cells), book / "notebooks" / "gates" / "the_cell.ipynb")


def run(book: Path, *options: str) -> subprocess.CompletedProcess:
    """`make run`."""
    return subprocess.run(
        [sys.executable, "tools/run.py", "--device", "cpu", *options],
        cwd=book,
        capture_output=True,
        text=True,
        env=os.environ,
    )


@pytest.fixture
def run_here(book, monkeypatch, capsys):
    """`make run` in this process, and in threads of it: what it prints. Each of its processes imports PyTorch."""
    monkeypatch.setattr(runner, "ROOT", book)
    monkeypatch.setattr(runner, "chosen", partial(runner.chosen, root=book))
    monkeypatch.setattr(runner, "notebook", partial(runner.notebook, root=book))
    monkeypatch.setattr(workers, "pool", ThreadPoolExecutor)

    def main(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["run.py", "--device", "cpu", *options])
        runner.main()
        return capsys.readouterr().out

    return main


def results(book: Path) -> dict:
    folder = book / "results" / folder_name(processor()) / "quick"
    return json.loads((folder / "gates" / "the_cell.json").read_text())


def test_a_run_is_recorded_once_and_again_after_a_change(book, run_here):
    done = run(book)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    found = results(book)
    jsonschema.validate(found, SCHEMA)
    assert found["figures"] == {"error": 0.25}
    assert [one["values"] for one in found["evidence"]] == [[0, 1]]
    assert "done before" in run_here()
    assert "done before" not in run_here("--again")
    put(book, 'run.claim("A02", "a number", [seed, .5], below=2)')
    assert "done before" not in run_here()
    assert results(book)["evidence"][0]["values"] == [0, 0.5]
    assert "done before" not in run_here("-p", "seed", "1")
    assert results(book)["evidence"][0]["values"] == [0, 0.5]
    (other,) = book.glob("_build/run/*/quick-seed-1/gates/the_cell.json")
    assert json.loads(other.read_text())["evidence"][0]["values"] == [1, 0.5]


def test_an_unknown_parameter_is_refused(book, run_here):
    with pytest.raises(SystemExit, match="gates/the_cell declares the parameters scale, device, seed; got sede"):
        run_here("-p", "sede", "1")
    assert not (book / "results").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "abacus"], "device must be one that is here"),
        (["gates/nothing"], "no chapter gates/nothing in _toc.yml; there are gates/the_cell"),
    ],
)
def test_bad_options_are_named(run_here, options, said):
    with pytest.raises(SystemExit, match=f"^{said}"):
        run_here(*options)


@pytest.mark.parametrize(
    ("cell", "options", "said"),
    [
        ('run.claim("A02", "a number", 3, below=2)', [], "claim A02, a number: measured 3, must be below 2"),
        ("import time; time.sleep(60)", ["--cell-timeout", "2"], "timed out"),
    ],
)
def test_a_chapter_that_fails_leaves_no_results(book, run_here, capsys, cell, options, said):
    put(book, cell)
    with pytest.raises(SystemExit, match="no results from gates/the_cell"):
        run_here(*options)
    assert said in capsys.readouterr().out
    assert not list(book.glob("results/*/*/*/*.json"))


def test_a_worker_leaves_an_interrupt_to_its_parent(tmp_path):
    (tmp_path / "main.py").write_text(
        "import signal, workers\n"
        "if __name__ == '__main__':\n"
        "    with workers.pool(1) as pool:\n"
        "        print(pool.submit(signal.getsignal, signal.SIGINT).result().name)\n"
        "    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tools")}
    done = subprocess.run([sys.executable, tmp_path / "main.py"], env=environment, capture_output=True, text=True)
    assert done.stdout == "SIG_IGN\n", done.stderr


def test_an_interrupt_ends_the_run_in_one_line(book):
    put(book, "import time; time.sleep(600)")
    command = [sys.executable, "tools/run.py", "--device", "cpu"]
    with subprocess.Popen(
        command, cwd=book, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not list(book.glob("_build/run/**/the_cell.ipynb")):  # papermill writes it before the first cell
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and workers
        told = "".join(process.communicate(timeout=60))
    assert process.returncode == 1
    assert "stopped; what was finished before is kept" in told
    assert "Traceback" not in told


@pytest.fixture
def scheduler(book):
    """A Dask scheduler with two workers for the book."""
    pytest.importorskip("distributed", reason="Dask is for those who have several machines")
    where = book / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(book / "tools"), *sys.path])}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    command += ["--scheduler-file", where]
    started = [subprocess.Popen(command, cwd=book, env=environment, start_new_session=True)]
    try:
        while not (where.exists() and where.read_text()):
            assert started[0].poll() is None
            time.sleep(0.1)
        address = json.loads(where.read_text())["address"]
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"]
        command += ["--nworkers", "2", "--nthreads", "1"]
        started.append(subprocess.Popen(command, cwd=book, env=environment, start_new_session=True))
        yield address
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def test_a_cluster_records_the_same_and_survives_the_end_of_a_worker(book, scheduler):
    here = run(book)
    assert here.returncode == 0, here.stderr
    expected = results(book)
    put(  # the second line ends the worker, which is the kernel's parent, the first time that it runs
        book,
        "import os, pathlib, signal\nflag = pathlib.Path('was_here')",
        "if not flag.exists():\n    flag.touch()\n    os.kill(os.getppid(), signal.SIGKILL)",
        'run.claim("A02", "a number", [seed, 1], below=2)',
        "run.glue('error', 0.25)",
    )
    done = run(book, "--dask", scheduler)
    assert done.returncode == 0, done.stderr
    assert (book / "notebooks" / "gates" / "was_here").exists()
    changing = {"date", "seconds", "source", "host_peak_bytes"}
    for name in expected.keys() - changing:
        assert results(book)[name] == expected[name], name


def test_a_cluster_that_is_not_there_is_named(book):
    pytest.importorskip("distributed")
    for address in ("tcp://127.0.0.1:9", "nowhere"):
        done = run(book, "--dask", address)
        assert done.returncode != 0
        assert f"--dask must be the address of a scheduler that runs, got {address}" in done.stderr
        assert "Traceback" not in done.stderr

"""`make run DEVICE=… SCALE=…`: execute the chapters with papermill and record their results.

Each chapter that succeeds leaves `results/<device>/<scale>/<chapter>.json`, by the name of the GPU or of the
processor, so that machines do not overwrite each other's records; commit these files and the ledger shows them. A
run that was stopped goes on where it was: a chapter whose code has not changed since is not run again. Records of
another seed (`make run SEED=3`) stay in `_build/run`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import time
from concurrent.futures import as_completed
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillException

import setup_cell
import workers
from chapters import ROOT, chosen, notebook
from lstm_lib import files
from lstm_lib.book import claims
from lstm_lib.book.notebook import GLUE, REPORT, device_name
from lstm_lib.training import find_device


def fingerprint(nb: nbformat.NotebookNode, parameters: dict) -> str:
    """A checksum of what decides a chapter's results: its code after the set-up, the library, the parameters."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
    for cell in nb.cells:
        if cell.cell_type == "code" and setup_cell.TAG not in cell.metadata.get("tags", []):
            digest.update(cell.source.encode())
    library = ROOT / "lstm_lib"
    for path in sorted(library.rglob("*.*")):
        if path.suffix in (".py", ".toml") and not {"mutants", "exercises"} & {*path.relative_to(library).parts}:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def folder_name(device: str) -> str:
    """A device's name as that of a folder.

    Examples
    --------
    >>> folder_name("Intel(R) Core(TM) i7-1185G7 @ 3.00GHz")
    'intel-core-i7-1185g7-3.00ghz'
    """
    return "-".join(re.findall(r"[a-z0-9.]+", re.sub(r"\((r|tm)\)", " ", device.lower())))


def refuse_unknown(chapter: str, parameters: dict) -> None:
    """Raise if a chapter does not declare a parameter: papermill itself would only log it."""
    declared = papermill.inspect_notebook(str(notebook(chapter)))
    if unknown := sorted(set(parameters) - set(declared)):
        raise SystemExit(
            f"{chapter} declares the parameters {', '.join(declared) or 'none'}; got {', '.join(unknown)}"
        )


def execute(chapter: str, parameters: dict, cell_timeout: int, out: Path) -> dict:
    """Run one chapter; the executed notebook goes to ``out``, the results come back."""
    nb = nbformat.read(notebook(chapter), 4)
    source = fingerprint(nb, parameters)
    nb.cells.append(nbformat.v4.new_code_cell("run.report()"))  # every chapter calls its run `run`
    draft = out / f"{chapter}.source.ipynb"
    draft.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, draft)
    os.environ["LSTM_LIB_PROGRESS"] = "0"
    start = time.perf_counter()
    done = papermill.execute_notebook(
        str(draft),
        str(out / f"{chapter}.ipynb"),
        parameters=parameters,
        kernel_name="python3",
        cwd=str(notebook(chapter).parent),  # moves the whole process, which runs one chapter
        execution_timeout=cell_timeout,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no warning for each of its local ports
        progress_bar=False,
    )
    seconds = time.perf_counter() - start
    draft.unlink()
    return results(chapter, done, parameters, seconds, source)


def results(chapter: str, nb: nbformat.NotebookNode, parameters: dict, seconds: float, source: str) -> dict:
    """What an executed chapter found, as `results/schema.json` describes it."""
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    figures = {
        output.metadata.scrapbook.name: ast.literal_eval(output.data[GLUE])
        for output in outputs
        if GLUE in output.get("data", {})
    }
    report = next(output.data[REPORT] for output in outputs if REPORT in output.get("data", {}))
    return {
        "chapter": chapter,
        "date": datetime.now(UTC).date().isoformat(),
        "parameters": parameters,
        "seconds": round(seconds, 1),
        "source": source,
        **report,
        "evidence": [e.to_json() for e in claims.from_outputs(outputs)],
        "figures": figures,
    }


def is_done(chapter: str, parameters: dict, target: Path, out: Path) -> bool:
    """Whether this machine has run the same code already."""
    if not (target.exists() and (out / f"{chapter}.ipynb").exists()):
        return False
    return json.loads(target.read_text())["source"] == fingerprint(nbformat.read(notebook(chapter), 4), parameters)


def main() -> None:
    """Run the chapters named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapter", nargs="*", help="such as gates/the_cell; all of them if none is named")
    parser.add_argument("--device", default="auto", help="cpu, cuda, … (auto)")
    parser.add_argument("--scale", default="quick", help="quick or full (quick)")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="one more parameter of the chapters, such as -p seed 3",
    )
    parser.add_argument("--jobs", type=int, help="how many at a time (one on a GPU, else one per core)")
    parser.add_argument("--dask", metavar="ADDRESS", help="run them on the workers of this Dask scheduler instead")
    parser.add_argument("--cell-timeout", type=int, default=1800, help="seconds that one cell may take")
    parser.add_argument("--again", action="store_true", help="run what is done already, too")
    options = parser.parse_args()
    try:
        device = find_device(options.device)
    except ValueError as problem:
        raise SystemExit(str(problem)) from None
    parameters = {"device": device.type, "scale": options.scale} | {
        name: json.loads(value) if value.lstrip("-").isdigit() else value for name, value in options.parameter
    }
    names = chosen(options.chapter)
    for name in names:
        refuse_unknown(name, parameters)
    others = "".join(f"-{name}-{value}" for name, value in options.parameter)
    folder = Path(folder_name(device_name(device)), options.scale + others)
    out = ROOT / "_build" / "run" / folder
    records = out if others else ROOT / "results" / folder  # only the book's own parameters are for the ledger
    target = {name: records / f"{name}.json" for name in names}
    waiting = [name for name in names if options.again or not is_done(name, parameters, target[name], out)]
    for name in sorted(set(names) - set(waiting)):
        print(f"{name}: done before (--again runs it once more)")
    failed = []
    jobs_at_a_time = options.jobs or (1 if device.type == "cuda" else os.cpu_count())
    with workers.cluster(options.dask) if options.dask else workers.pool(jobs_at_a_time) as pool:
        jobs = {pool.submit(execute, name, parameters, options.cell_timeout, out): name for name in waiting}
        for job in as_completed(jobs):
            name = jobs[job]
            try:
                found = job.result()
            except (PapermillException, CellTimeoutError) as problem:
                failed.append(name)
                print(f"{name}: FAILED, see {(out / name).relative_to(ROOT)}.ipynb\n{problem}", flush=True)
                continue
            files.write(target[name], json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            print(f"{name}: {found['seconds']:.0f} s, {len(found['evidence'])} measures", flush=True)
    if failed:
        raise SystemExit(f"no results from {', '.join(failed)}")


if __name__ == "__main__":
    main()

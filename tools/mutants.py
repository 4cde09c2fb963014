"""`make mutants [NB=…]`: break the subject of each chapter on purpose, and record which bounds notice.

A chapter runs as it is, and must pass; then with each of its mutants, as far as the last measure that this one
must break, past broken bounds and failed asserts. `results/mutants/<chapter>.json` tells what each run measured;
commit it, and the ledger and the claims' boxes quote it. A mutant whose record is of this chapter and this patch
is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

import setup_cell
import workers
from chapters import ROOT, chosen, notebook
from lstm_lib import files
from lstm_lib.book import claims
from lstm_lib.book.mutants import Mutant, fingerprint, registry
from lstm_lib.book.notebook import REPORT

UNFINISHED = {"CellTimeoutError", "DeadKernelError"}
"""What ended a run that was not ours to end: it tells nothing of the mutant, so it is tried again."""

FAILED = "application/vnd.lstm-lib.failed+json"
"""The type under which an output tells of an assert that failed."""

PAST = f"""\
import ast
from IPython.display import display
from lstm_lib.book import claims

claims.Evidence.check = lambda evidence: None

def _failed(text):
    display({{{FAILED!r}: text}}, raw=True)

class Past(ast.NodeTransformer):
    def visit_Assert(self, node):
        around = ast.parse(f"try: pass\\nexcept Exception: _failed({{ast.unparse(node)!r}})").body[0]
        around.body = [node]
        return around

get_ipython().ast_transformers.append(Past())
"""
"""The first cell of a broken chapter: bounds do not raise, and a failed assert is told and passed."""


def code_cells(nb: nbformat.NotebookNode, mutant: Mutant | None = None) -> list[nbformat.NotebookNode]:
    """The cells of code behind the set-up: as far as the last claim, or the last that the mutant must break."""
    code = [c for c in nb.cells if c.cell_type == "code" and setup_cell.TAG not in c.metadata.get("tags", [])]

    def counts(one: claims.Evidence) -> bool:
        return not mutant or one.measure in mutant.breaks.get(one.claim, ())

    ends = [k for k, cell in enumerate(code, 1) if any(map(counts, claims.from_outputs(cell.outputs)))]
    return code[: max(ends, default=len(code))]


def sources(chapter: str, mutants: Iterable[Mutant] = (), root: Path = ROOT) -> list[list[str]]:
    """The code of a chapter, cell by cell: as it is, and as far as it goes with each mutant, not yet applied."""
    path = notebook(chapter, root)
    nb = _read(path, path.stat().st_mtime_ns)
    return [[cell.source for cell in code_cells(nb, mutant)] for mutant in (None, *mutants)]


@cache
def _read(path: Path, changed: int) -> nbformat.NotebookNode:
    """A notebook: reading takes a second, so once while it is unchanged. Nobody changes what this returns."""
    return nbformat.read(path, 4)


def recorded(chapter: str, root: Path = ROOT) -> dict[str, dict]:
    """The recorded runs of a chapter's mutants, by name; empty where there are none."""
    path = target(chapter, root)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(chapter: str, runs: dict[str, dict], root: Path = ROOT) -> None:
    """Write the recorded runs of a chapter's mutants."""
    files.write(target(chapter, root), json.dumps(runs, indent=1, ensure_ascii=False) + "\n")


def complete(chapter: str, root: Path = ROOT) -> bool:
    """Whether each mutant of a chapter that has some is recorded."""
    ours = {mutant.name for mutant in registry() if mutant.chapter == chapter}
    return bool(ours) and ours <= recorded(chapter, root).keys()


def current(chapter: str, root: Path = ROOT) -> set[str]:
    """The fingerprints of a chapter with each mutant that fits it: a record of another one is stale."""
    ours, found = [mutant for mutant in registry() if mutant.chapter == chapter], set()
    for mutant, code in zip(ours, sources(chapter, ours, root)[1:], strict=True):
        with suppress(ValueError):
            found.add(fingerprint(mutant.applied(code)))
    return found


def target(chapter: str, root: Path = ROOT) -> Path:
    """The file of a chapter's recorded runs."""
    return root / "results" / "mutants" / f"{chapter}.json"


def execute(chapter: str, cells: list[str], cell_timeout: int, root: Path = ROOT) -> dict:
    """Run a chapter with this code: what it measured, and what went wrong."""
    path = notebook(chapter, root)
    code = code_cells(nbformat.read(path, 4))[: len(cells)]
    for cell, text in zip(code, cells, strict=True):
        cell.source, cell.outputs = text, []
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += '\nscale, device = "quick", "cpu"'
    new = nbformat.v4.new_code_cell
    nb = nbformat.v4.new_notebook(cells=[new(PAST), *code, new("run.report()")])
    os.environ |= {"LSTM_LIB_PROGRESS": "0", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    start, errors = time.perf_counter(), []
    try:
        NotebookClient(
            nb,
            timeout=cell_timeout,
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(path.parent)}},
        ).execute()
    except (CellTimeoutError, DeadKernelError) as problem:
        errors = [type(problem).__name__]
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    for output in outputs:
        if output.output_type == "error":
            errors.append(f"{output.ename}: {output.evalue}".splitlines()[0])
        elif FAILED in output.get("data", {}):
            errors.append(output.data[FAILED])
    report = next((output.data[REPORT] for output in outputs if REPORT in output.get("data", {})), {})
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - start, 1),
        "source": fingerprint(cells),
        **{key: report.get(key) for key in ("device", "threads", "versions")},
        "errors": list(dict.fromkeys(errors)),
        "evidence": [one.to_json() for one in claims.from_outputs(outputs)],
    }


def broken(run: dict) -> list[claims.Evidence]:
    """What a recorded run measured outside its bound. What was not measured, or is not a number, is not broken."""
    found = map(claims.Evidence.from_json, run["evidence"])
    return [one for one in found if not (one.holds or any(map(math.isnan, one.values)))]


def survived(mutant: Mutant, run: dict) -> list[str]:
    """The measures that a mutant must break and did not."""
    noticed = {(one.claim, one.measure) for one in broken(run)}
    return [
        f"{claim}, {name}"
        for claim, names in mutant.breaks.items()
        for name in names
        if (claim, name) not in noticed
    ]


def record(
    chapter: str,
    mutants: list[Mutant],
    jobs: int = 1,
    cell_timeout: int = 300,
    again: bool = False,
    root: Path = ROOT,
) -> list[str]:
    """Run the mutants of a chapter whose record is not of this code, and write the record.

    Parameters
    ----------
    chapter : str
        Such as ``gates/the_cell``.
    mutants : list of Mutant
        All that the chapter has.
    jobs : int
        How many to run at a time.
    cell_timeout : int
        Seconds that one cell may take.
    again : bool
        Run what is recorded already, too.
    root : Path
        The folder of the book.

    Returns
    -------
    list of str
        What is wrong: a sentence for each measure that survives.

    Raises
    ------
    ValueError
        If the chapter does not pass as it is, or a mutant does not fit it.
    """
    whole, *parts = sources(chapter, mutants, root)
    patched = {mutant.name: mutant.applied(part) for mutant, part in zip(mutants, parts, strict=True)}
    known = {} if again else recorded(chapter, root)
    runs = {
        name: run
        for name, run in known.items()
        if name in patched and run["source"] == fingerprint(patched[name]) and not UNFINISHED & set(run["errors"])
    }
    waiting = [name for name in patched if name not in runs]
    if not known.keys() <= patched.keys():  # a mutant has left the list
        write(chapter, {name: run for name, run in known.items() if name in patched}, root)
    with workers.pool(jobs) as pool:
        if waiting:
            as_it_is = whole[: max(len(patched[name]) for name in waiting)]
            base = pool.submit(execute, chapter, as_it_is, cell_timeout, root).result()
            wrong = base["errors"] + [one["measure"] for one in base["evidence"] if not one["holds"]]
            if wrong:
                raise ValueError(f"{chapter} must pass as it is, got {'; '.join(wrong)}")
        run_one = partial(execute, chapter, cell_timeout=cell_timeout, root=root)
        for name, run in zip(waiting, pool.map(run_one, [patched[name] for name in waiting]), strict=True):
            runs[name] = run | {key: base[key] for key in ("device", "threads", "versions")}
            write(chapter, {name: runs[name] for name in patched if name in runs}, root)
            print(
                f"{chapter}, {name}: {run['seconds']:.0f} s, {len(broken(run))} of {len(run['evidence'])} broken",
                flush=True,
            )
    return [f"{m.name}: survived by {measure}" for m in mutants for measure in survived(m, runs[m.name])]


def main() -> None:
    """Break the chapters named on the command line, or all that have mutants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "chapter", nargs="*", help="such as gates/the_cell; all that have mutants if none is named"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    parser.add_argument("--cell-timeout", type=int, default=300, help="seconds that one cell may take")
    parser.add_argument("--again", action="store_true", help="run what is recorded already, too")
    options = parser.parse_args()
    wrong = []
    for chapter in chosen(options.chapter):
        if mutants := [mutant for mutant in registry() if mutant.chapter == chapter]:
            try:
                wrong += record(chapter, mutants, options.jobs, options.cell_timeout, options.again)
            except ValueError as problem:
                wrong.append(str(problem))
        elif options.chapter:
            wrong.append(f"{chapter} has no mutants in lstm_lib/book/mutants")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()

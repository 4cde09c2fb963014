"""`make notebooks`: execute the chapters where they stand and write them in canonical form.

Canonical form holds what a reader needs and nothing of the machine: doing it twice changes no byte. On another
processor the last digits differ; a cell of which no number moved beyond its tolerance keeps its committed outputs.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from concurrent.futures import as_completed
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

import setup_cell
import workers
from chapters import chosen, notebook
from lstm_lib import files
from lstm_lib.book import claims
from nbval_numbers import compare, figures

KEPT = ("tags", "mystnb")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def canonical(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs between machines and moments: times, versions, the state of an editor.

    A claim's card has the words of the registry, which may have changed since the chapter ran; its numbers stay.
    """
    nb.metadata = nbformat.from_dict(METADATA)
    nb.nbformat, nb.nbformat_minor = 4, 5
    last = None
    for cell in nb.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)})
        for output in cell.get("outputs", []):
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
            if claims.MIME in output.get("data", {}):
                one = claims.Evidence.from_json(output.data[claims.MIME])
                output.data, last = nbformat.from_dict(one.card(brief=one.claim == last)), one.claim
    return nb


def settle(nb: nbformat.NotebookNode, committed: nbformat.NotebookNode) -> None:
    """Put the committed outputs back into each cell in which nothing moved, in place.

    Parameters
    ----------
    nb : NotebookNode
        As executed.
    committed : NotebookNode
        The same cells with the outputs that they had.
    """
    for new, old in zip(nb.cells, committed.cells, strict=True):
        if new.cell_type == "code" and old.outputs and not moved(old, new.outputs):
            new.outputs = old.outputs


def moved(cell: nbformat.NotebookNode, fresh: list[dict]) -> bool:
    """Whether a number of a cell's outputs differs beyond the cell's tolerance, or anything else does."""
    numbers = compare.Comparison(compare.tolerance(cell, 1e-4), atol=1e-9)  # as the tests compare
    numbers.outputs(cell.outputs, fresh)
    pictures = compare.Comparison(rtol=1e-3, atol=0.02)  # points, of which an inch has 72
    for old, new in zip(*(texts(outputs, "image/svg+xml") for outputs in (cell.outputs, fresh)), strict=False):
        pictures.text("picture", old, new)
    form = [list(map(numbers.shape, texts(outputs))) for outputs in (cell.outputs, fresh)]
    return bool(numbers.told or pictures.told or form[0] != form[1])


def texts(outputs: list[dict], kind: str = "") -> list[str]:
    """What outputs hold, of one type or of all."""
    return [
        str(data)
        for output in outputs
        for name, data in {"text": output.get("text", ""), **output.get("data", {})}.items()
        if kind in ("", name)
    ]


def write(nb: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    files.write(path, nbformat.writes(nb) + "\n")


def execute(chapter: str, cell_timeout: int) -> float:
    """Run one chapter from top to bottom and write it back; returns its seconds."""
    path = notebook(chapter)
    committed = nbformat.read(path, 4)
    nb = copy.deepcopy(committed)
    setup_cell.fill(nb, setup_cell.repository_url())
    # Tests and committed outputs are made with one thread: the last digits depend on their number.
    os.environ |= {"LSTM_LIB_PROGRESS": "0", "PYTHONHASHSEED": "0"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    start = time.perf_counter()
    # Printed lines arrive in one piece or in several, as it happens: coalesced, they are one output each time.
    NotebookClient(
        nb,
        timeout=cell_timeout,
        kernel_name="python3",
        coalesce_streams=True,
        extra_arguments=[f"--IPKernelApp.exec_lines={figures.LOAD}"],  # what figures drew, for `make test`
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    loud = [
        f"cell {k}: {output.get('text', output.get('evalue')).strip()}"
        for k, cell in enumerate(nb.cells)
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr" or output.output_type == "error"  # one that stopped nothing
    ]
    if loud:
        raise SystemExit("\n".join([f"{chapter} shows a reader warnings or errors; nothing is written.", *loud]))
    settle(nb, committed)
    write(canonical(nb), path)
    return time.perf_counter() - start


def main() -> None:
    """Execute the chapters named on the command line, or all, several at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapter", nargs="*", help="such as gates/the_cell; all of them if none is named")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    parser.add_argument("--cell-timeout", type=int, default=300, help="seconds that one cell may take")
    parser.add_argument("--form", action="store_true", help="canonical form alone, without a run")
    options = parser.parse_args()
    if options.form:  # after a change of a claim's words
        for path in map(notebook, chosen(options.chapter)):
            write(canonical(nbformat.read(path, 4)), path)
        return
    failed = []
    with workers.pool(options.jobs) as pool:
        jobs = {pool.submit(execute, name, options.cell_timeout): name for name in chosen(options.chapter)}
        for job in as_completed(jobs):
            try:
                print(f"{jobs[job]}: {job.result():.0f} s", flush=True)
            except (CellExecutionError, CellTimeoutError, SystemExit) as problem:
                failed.append(jobs[job])
                print(f"{jobs[job]}: FAILED\n{problem}", flush=True)
    if failed:
        raise SystemExit(f"not written: {', '.join(failed)}")


if __name__ == "__main__":
    main()

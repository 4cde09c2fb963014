"""How committed notebooks are compared with a fresh run: nbval, tools/nbval_numbers, and the book's evidence.

Numbers may differ by 1e-4 of their size, or by what a cell's tag `rtol-1e-2` allows. Evidence (`run.claim`) is
compared by number where it has a tolerance, and judged by its bound in any cell, those that train included.

A notebook whose data lie at a website that does not answer is skipped from there on: the tests need a package
index and nothing else. A file of a wrong checksum, or one that the website has lost, fails.
"""

import os

import pytest
from nbval.plugin import IPyNbCell

from lstm_lib.book.claims import MIME, from_outputs

pytest_plugins = ["nbval_numbers.plugin"]
os.environ["LSTM_LIB_PROGRESS"] = "0"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip what follows a cell whose data could not be reached."""
    if isinstance(item, IPyNbCell) and (reason := getattr(item.parent, "unreachable", None)):
        pytest.skip(reason)


def pytest_nbval_compare(cell, committed, fresh):
    """Say which evidence of a cell moved, and keep the cards, whose text repeats it, from being compared again."""
    for output in fresh:
        if output.get("ename") == "DatasetUnreachable":
            cell.parent.unreachable = output["evalue"].splitlines()[0]
            pytest.skip(cell.parent.unreachable)
    old, new = ({(e.claim, e.measure): e for e in from_outputs(outputs)} for outputs in (committed, fresh))
    for outputs in (committed, fresh):
        outputs[:] = [output for output in outputs if MIME not in output.get("data", {})]
    if list(old) != list(new) and not cell.stopped:
        return [
            f"the committed cell gives evidence for {list(old)}, this run for {list(new)}; run `make notebooks`"
        ]
    return [line for name in new if name in old and (line := new[name].moved(old[name]))]

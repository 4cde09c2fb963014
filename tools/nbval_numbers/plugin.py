"""The pytest plugin: puts :mod:`.compare` in the place of nbval's comparison, and has kernels describe figures.

It needs no more than to be loaded, as ``-p nbval_numbers.plugin`` or by ``pytest_plugins``.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from nbval.plugin import IPyNbCell

from nbval_numbers import figures
from nbval_numbers.compare import Comparison, tolerance

MOST = 20
"""So many lines are told of a cell; the others are counted."""


def pytest_addoption(parser) -> None:
    """Two settings for all notebooks; a tag such as ``rtol-1e-2`` is one for its cell."""
    parser.addini("nbval_rtol", "relative tolerance for numbers in the outputs of notebooks", default="1e-4")
    parser.addini("nbval_atol", "absolute tolerance for numbers in the outputs of notebooks", default="1e-9")


class Hooks:
    """What a conftest.py may add."""

    @pytest.hookspec
    def pytest_nbval_compare(self, cell: IPyNbCell, committed: list[dict], fresh: list[dict]) -> list[str]:
        """Say what differs between the outputs of a cell, a line each, before they are compared.

        Outputs that the hook takes out of the two lists are not compared again. It is called for a cell that an
        error stopped (``cell.stopped``), and for one whose output nbval is told to ignore (``not cell.checked``).
        """


def pytest_addhooks(pluginmanager) -> None:
    """Make the hook known."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_itemcollected(item) -> None:
    """Put our comparison in the place of nbval's, which has no hook for it."""
    if not isinstance(item, IPyNbCell) or item.config.option.nbval_lax:
        return
    item.checked, item.stopped = item.options["check"], True
    item.options["check"] = True  # or else nbval keeps the outputs of a cell to itself, and its figures with them
    fail = item.raise_cell_error

    def compare(fresh, committed, skip_compare=None) -> bool:
        item.stopped = False
        item.comparison_traceback = differences(item, committed, fresh)
        return not item.comparison_traceback

    def raise_cell_error(message, *details, **more):
        told = differences(item, item.cell.outputs, item.test_outputs or []) if item.stopped else []
        fail("\n".join([message, *told]), *details, **more)

    item.compare_outputs, item.raise_cell_error = compare, raise_cell_error


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item) -> None:
    """Have the kernel describe its figures, before the first cell of a notebook."""
    if isinstance(item, IPyNbCell) and not getattr(item.parent, "describes", False):
        kernel, item.parent.describes = item.parent.kernel, True
        kernel.await_reply(kernel.kc.execute(figures.LOAD, silent=True), timeout=60)


def differences(item: IPyNbCell, committed: Iterable[dict], fresh: Iterable[dict]) -> list[str]:
    """What differs in a cell: the lines of the hook, then ours."""
    committed, fresh = list(committed), list(fresh)
    told = [
        line
        for lines in item.ihook.pytest_nbval_compare(cell=item, committed=committed, fresh=fresh)
        for line in lines
    ]
    if not item.stopped:
        rtol = tolerance(item.cell, float(item.config.getini("nbval_rtol")))
        comparison = Comparison(rtol, float(item.config.getini("nbval_atol")), not item.checked)
        comparison.ignored, comparison.sanitize = set(item.parent.skip_compare), item.sanitize
        comparison.outputs(committed, fresh)
        where = f"{item.nodeid.split('::')[0]}, cell {item.cell_num}, "
        told += [where + line for line in comparison.told]
    return told if len(told) <= MOST else [*told[:MOST], f"… and {len(told) - MOST} more differences"]

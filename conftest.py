"""How committed notebooks are compared with a fresh run, on top of nbval.

nbval compares text to the letter. A number that another CPU computes a little differently is not a regression, so:

* Evidence (`run.claim`) is compared by number where it has a tolerance, and always judged by its bound, in cells
  tagged `nbval-ignore-output` too.
* Numbers in other outputs may differ by 1e-4 of their size; a cell tagged `rtol-1e-2` allows more.
* Pictures and progress on stderr are not compared.
"""

import math
import os
import re

from nbval.plugin import IPyNbCell

from lstm_lib.book.claims import MIME, Evidence, from_outputs

os.environ["LSTM_LIB_PROGRESS"] = "0"
RTOL, ATOL = 1e-4, 1e-9
NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
NOT_COMPARED = ("image/svg+xml", "image/png", "image/jpeg", "text/latex")


def value(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-") or 0)


def same_text(old: str, new: str, rtol: float) -> bool:
    """Whether two texts differ at most in numbers, and these by little."""
    if " ".join(NUMBER.sub("#", old).split()) != " ".join(NUMBER.sub("#", new).split()):
        return False
    return all(
        math.isclose(value(a), value(b), rel_tol=rtol, abs_tol=ATOL)
        for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    )


def texts(output: dict):
    """The places in an output that hold text: (mapping, key)."""
    if "text" in output:
        yield output, "text"
    for key in output.get("data", {}):
        if key not in NOT_COMPARED:
            yield output["data"], key


def moved(committed: list[Evidence], fresh: list[Evidence]) -> list[str]:
    """What the evidence of a cell says about it: a line for each measure that moved."""
    names = [(e.claim, e.measure) for e in committed]
    if names != [(e.claim, e.measure) for e in fresh]:
        return [
            f"the committed cell gives evidence for {names}, this run for "
            f"{[(e.claim, e.measure) for e in fresh]}; run `make notebooks`"
        ]
    return [line for new, old in zip(fresh, committed, strict=True) if (line := new.moved(old))]


def compare_outputs(self, test, ref, skip_compare=None):
    """Stands in for nbval's method of this name: the same, with tolerances."""
    if lines := moved(from_outputs(ref), from_outputs(test)):
        self.comparison_traceback = lines
        return False
    if self.trained:
        return True
    tags = self.cell.metadata.get("tags", [])
    rtol = next((float(tag.removeprefix("rtol-")) for tag in tags if tag.startswith("rtol-")), RTOL)
    test, ref = (
        [out for out in outs if MIME not in out.get("data", {}) and out.get("name") != "stderr"]
        for outs in (test, ref)
    )  # the text of a card repeats its evidence
    for old, new in zip(ref, test, strict=False):
        for (a, key), (b, other) in zip(texts(old), texts(new), strict=False):
            if key == other and isinstance(a[key], str) and same_text(a[key], b[key], rtol):
                b[key] = a[key]
    return exact(self, test, ref, (skip_compare or self.parent.skip_compare) + NOT_COMPARED)


def raise_cell_error(self, message, *details, **more):
    """Stands in for nbval's method of this name: adds what evidence a failed cell gave before it stopped."""
    fresh = from_outputs(self.test_outputs or [])
    committed = {(e.claim, e.measure): e for e in from_outputs(self.cell.outputs)}
    lines = [
        line
        for new in fresh
        if (new.claim, new.measure) in committed and (line := new.moved(committed[new.claim, new.measure]))
    ]
    plain(self, "\n".join([message, *lines]), *details, **more)


exact, IPyNbCell.compare_outputs = IPyNbCell.compare_outputs, compare_outputs
plain, IPyNbCell.raise_cell_error = IPyNbCell.raise_cell_error, raise_cell_error


def pytest_collection_modifyitems(items):
    """Have nbval hand over the outputs of cells with trained results too: their evidence has a bound."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.trained = not item.options["check"]
            item.options["check"] = True

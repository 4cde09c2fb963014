"""What the first cell of a chapter sets up: device, scale, seed, figures, and where its evidence goes."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from typing import TypeVar

import matplotlib as mpl
import numpy as np
import torch

from lstm_lib.book import claims, exercises, plots
from lstm_lib.training import find_device

GLUE = "application/papermill.record/text/plain"
"""The type under which an output carries a number for the prose (myst-nb's ``glue``)."""

REPORT = "application/vnd.lstm-lib.report+json"
"""The type under which :meth:`Run.report` tells what a run needed."""

T = TypeVar("T")


def start(chapter: str, scale: str = "quick", device: str = "auto", seed: int = 0) -> Run:
    """Set a chapter up, so that it gives the same numbers and figures each time it runs.

    Seeds PyTorch, keeps to one CPU thread unless ``OMP_NUM_THREADS`` says otherwise, turns TF32 off (a GPU then
    computes in float32, as the claims assume), has the CPU take denormal numbers for zero where it can (below
    1e-38 in float32), and draws figures as vectors in the book's style.

    Parameters
    ----------
    chapter : str
        The chapter, such as ``gates/the_cell``.
    scale : {"quick", "full"}
        A minute on one CPU thread, or the sizes of the papers.
    device : str
        ``auto``, ``cpu``, ``cuda`` …, see :func:`lstm_lib.training.find_device`.
    seed : int
        The first seed.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        For another scale, or a device that this machine lacks.
    TypeError
        If ``seed`` is no whole number.
    """
    if scale not in ("quick", "full"):
        raise ValueError(f"scale must be 'quick' or 'full', got {scale!r}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    run = Run(chapter, scale == "full", find_device(device), seed)
    torch.manual_seed(seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    torch.backends.cudnn.allow_tf32 = False
    torch.set_flush_denormal(True)  # a gradient that vanishes passes through them, many times slower
    plots.style()
    if (ipython := sys.modules.get("IPython")) and ipython.get_ipython():  # in a notebook
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None, "Creator": None})
        mpl.rcParams["svg.hashsalt"] = chapter
    return run


class Run:
    """One run of a chapter; :func:`start` makes it.

    Parameters
    ----------
    chapter : str
        The chapter, such as ``gates/the_cell``.
    full : bool
        Whether the sizes are those of the papers.
    device : torch.device
        Where to train.
    seed : int
        The first seed.
    """

    def __init__(self, chapter: str, full: bool, device: torch.device, seed: int) -> None:
        self.chapter, self.full, self.device, self.seed = chapter, full, device, seed
        self._last_claim = ""

    def seeds(self, count: int) -> list[int]:
        """The seeds of ``count`` repetitions, from the chapter's own seed upwards."""
        return list(range(self.seed, self.seed + count))

    def pick(self, quick: T, full: T) -> T:
        """The value for the scale at which the chapter runs."""
        return full if self.full else quick

    def claim(
        self,
        name: str,
        measure: str,
        values: float | Iterable[float],
        *,
        unit: str = "",
        over: str = "seed",
        rtol: float | None = None,
        **bound: float | tuple[float, float],
    ) -> None:
        """Show the evidence for a claim, and stop the chapter if it breaks its bound.

        Where a person runs the cells, a broken bound is a red card and the notebook goes on: whoever changes a
        number, as the pages invite, wants to see what else changes. nbval, papermill and nbconvert stop.

        Parameters
        ----------
        name : str
            Id of the claim, such as ``A02``.
        measure : str
            What was measured, in words.
        values : float or iterable of float
            One value, or one per seed; numbers, or tensors of one element.
        unit, over, rtol
            As in :class:`lstm_lib.book.claims.Evidence`.
        **bound
            One of ``below=x``, ``above=x``, ``within=(low, high)``, ``equals=x``.

        Raises
        ------
        lstm_lib.book.claims.BoundFailed
            If a value breaks the bound and nobody is there to see it. The evidence is shown first.
        """
        several = isinstance(values, Iterable) and getattr(values, "ndim", 1) > 0
        values = tuple(map(float, values if several else [values]))
        evidence = claims.Evidence(name, self.chapter, measure, values, claims.Bound.of(**bound), unit, over, rtol)
        show(evidence.card(brief=name == self._last_claim))
        self._last_claim = name
        if not somebody_is_there():
            evidence.check()

    def glue(self, name: str, value: float | int | str) -> None:
        """Publish a number or a word for the prose, which quotes it as ``{glue:text}`name:.3g```.

        Parameters
        ----------
        name : str
            Unique in the chapter.
        value : float or int or str
            Or a tensor of one element.
        """
        plain = value if isinstance(value, str | int) else float(value)
        show({GLUE: repr(plain)}, {"scrapbook": {"mime_prefix": GLUE.removesuffix("text/plain"), "name": name}})

    def say(self, **numbers: float | int | str) -> None:
        """Publish numbers under the chapter's name: ``say(best_lag=3)`` is ``forget-gate-best-lag`` in its prose.

        Parameters
        ----------
        **numbers
            As in :meth:`glue`.
        """
        chapter = self.chapter.rpartition("/")[2]
        for name, value in numbers.items():
            self.glue(f"{chapter}-{name}".replace("_", "-"), value)

    def check(self, name: str, answer: object) -> None:
        """Say whether the answer to an exercise is right, with a hint if it is not.

        Parameters
        ----------
        name : str
            The exercise's label without the chapter's name: ``half`` is ``the-cell-half`` in ``gates/the_cell``.
        answer : number, str, or sequence of numbers
            The dots (``...``) stand for no answer yet.

        Raises
        ------
        ValueError
            For an exercise that does not answer, or not as many numbers as were asked for.
        TypeError
            If the answer is of another kind.
        AssertionError
            If a wrong answer is given and nobody is there to see it: then it is the chapter's own solution.
        """
        ours = {one.name: one for one in exercises.registry().values() if one.chapter == self.chapter}
        if name not in ours:
            raise ValueError(f"name must be one of {', '.join(ours) or 'none'} in {self.chapter}, got {name!r}")
        right, text = ours[name].reply(answer)
        print(text)
        assert right or answer is ... or somebody_is_there(), text

    def table(self, head: Iterable[object], *rows: Iterable[object]) -> None:
        """Show computed rows as a table.

        Parameters
        ----------
        head : iterable
            Names of the columns.
        *rows : iterable
            One cell per column: a number, a shape, or text, which may hold HTML.
        """

        def line(tag: str, cells: Iterable[object]) -> str:
            style = ("text-align: left; white-space: " + wrap for wrap in ("nowrap", "normal"))
            short, long = (f'<{tag} style="{text}">' for text in style)
            return f"<tr>{''.join(f'{short if len(str(x)) < 25 else long}{x}</{tag}>' for x in cells)}</tr>"

        head, rows = list(head), [list(row) for row in rows]
        # On a phone a wide table scrolls in its box; the box takes the focus, so that the keyboard scrolls it too.
        show(
            {
                "text/html": '<div style="overflow-x: auto; margin: 0.5em 0" tabindex="0"><table class="table">'
                f"<thead>{line('th', head)}</thead>"
                f"<tbody>{''.join(line('td', row) for row in rows)}</tbody></table></div>",
                "text/plain": "\n".join(" | ".join(map(str, row)) for row in [head, *rows]),
            }
        )

    def report(self) -> None:
        """Publish what the run needed: device, versions, peak memory. The runner adds this as a last cell."""
        cuda = self.device.type == "cuda"
        show(
            {
                REPORT: {
                    "device": device_name(self.device),
                    "device_peak_bytes": torch.cuda.max_memory_allocated(self.device) if cuda else None,
                    "host_peak_bytes": host_peak_bytes(),
                    "threads": torch.get_num_threads(),
                    "versions": {
                        "python": platform.python_version(),
                        "torch": torch.__version__,
                        "numpy": np.__version__,
                        "cuda": torch.version.cuda if cuda else None,
                    },
                }
            }
        )


def ranged(values: Iterable[float], digits: int = 0) -> str:
    """The median of several runs, with the least and the greatest.

    Parameters
    ----------
    values : iterable of float
        One per run.
    digits : int
        Decimals to show.

    Returns
    -------
    str

    Examples
    --------
    >>> ranged([0.25, 0.5, 0.31], digits=2)
    '0.31 (0.25–0.50)'
    """
    values = list(values)
    middle, least, most = np.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})"


def listed(items: Iterable[object]) -> str:
    """A list as prose has it.

    Parameters
    ----------
    items : iterable
        One at least.

    Returns
    -------
    str

    Examples
    --------
    >>> listed([8, 16, 32])
    '8, 16 and 32'
    >>> listed(["one"])
    'one'
    """
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def show(data: dict, metadata: dict | None = None) -> None:
    """Put a MIME bundle under the cell."""
    from IPython.display import display

    display(data, metadata=metadata or {}, raw=True)


def somebody_is_there() -> bool:
    """Whether a person runs this cell, and not a program.

    A person's frontend lets the kernel ask questions, a program does not: the request to execute the cell says so
    (``allow_stdin`` of Jupyter's messages). With ``LSTM_LIB_STRICT=1`` in the environment nobody is there.
    """
    ipython = sys.modules.get("IPython")
    kernel = ipython and getattr(ipython.get_ipython(), "kernel", None)
    if not kernel or os.environ.get("LSTM_LIB_STRICT") == "1":
        return False
    return bool(kernel.get_parent().get("content", {}).get("allow_stdin"))


def has_bf16_kernel(device: str | torch.device = "cpu") -> bool:
    """Whether PyTorch's LSTM kernel computes in bfloat16 on this device; on a CPU without AVX-512 it may not.

    Parameters
    ----------
    device : str or torch.device
        Where to ask.

    Returns
    -------
    bool
    """
    layer, x = torch.nn.LSTM(2, 2, device=device), torch.zeros(1, 1, 2, device=device)
    try:
        with torch.no_grad(), torch.autocast(torch.device(device).type, torch.bfloat16):
            layer(x)
    except RuntimeError:  # oneDNN: could not create a primitive descriptor
        return False
    return True


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the processor.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    str
    """
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def processor() -> str:
    """The name of the CPU, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def host_peak_bytes() -> int | None:
    """Most memory that this process has held, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""The look of the book's figures: one colour per quantity, readable on a white and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba

INK = "#70757d"
"""Text and axes: a grey of 4.6:1 on white. None has 4.5:1 on the dark page too, so its style brightens figures."""

COLOUR = {
    # the quantities of a cell, apart under red-green blindness too
    "input": "#1c96fa",
    "forget": "#a34931",
    "candidate": "#b2309c",
    "output": "#05a886",
    "cell": "#c18b0a",
    "hidden": "#8c20fb",
    "x": INK,
    # models
    "lstm": "#d1495b",
    "gru": "#5b8c2a",
    "rnn": "#4f7cac",
    "baseline": INK,
    # the arms of an experiment that are no kinds of network of their own: initializations, optimizers, rivals
    "first": "#4f7cac",
    "second": "#5b8c2a",
    "third": "#d1495b",
    # training
    "loss": "#4f7cac",
    "validation": "#d1495b",
    "target": INK,
    "warning": "#d1495b",
}
"""The colour of each quantity, the same in every chapter."""


def style() -> None:
    """Set matplotlib up for the book: transparent ground, mid-tone ink, no box around the axes."""
    mpl.rcParams.update(
        {
            "figure.figsize": (5.6, 2.8),  # inches; no wider, so that its text can be read on a phone
            "figure.facecolor": "none",
            "figure.constrained_layout.use": True,
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "savefig.bbox": "tight",
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "grid.color": INK,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.6,
            "axes.grid": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "font.size": 10.5,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "legend.labelcolor": INK,
            "axes.prop_cycle": mpl.cycler(
                color=[COLOUR[name] for name in ("input", "forget", "output", "candidate", "cell", "hidden")]
            ),
        }
    )


def shades(colour: str, least: float = 0.0, most: float = 1.0) -> LinearSegmentedColormap:
    """A colour map that fades into the page, light or dark: one that ends in white glares on a dark page.

    Parameters
    ----------
    colour : str
        A key of :data:`COLOUR`.
    least, most : float
        How opaque the colour is at the lower and at the upper end, 0 to 1.

    Returns
    -------
    matplotlib.colors.LinearSegmentedColormap

    Raises
    ------
    ValueError
        If ``colour`` is not a quantity of :data:`COLOUR`.

    Examples
    --------
    >>> clear, full = shades("lstm")([0.0, 1.0])  # red, green, blue, opacity
    >>> float(clear[3]), float(full[3])
    (0.0, 1.0)
    """
    ends = [to_rgba(_known(colour), alpha) for alpha in (least, most)]
    return LinearSegmentedColormap.from_list(colour, ends)


def spread(ax: Axes, x: Sequence[float], runs: Sequence[Sequence[float]], label: str, colour: str, **line) -> None:
    """Draw several runs as their median, with a band from the least to the greatest.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    x : sequence of float, (n,)
        Positions.
    runs : sequence of sequence of float, (num_seeds, n)
        One row per seed.
    label : str
        Entry of the legend.
    colour : str
        A key of :data:`COLOUR`.
    **line
        Options of the median's line.

    Raises
    ------
    ValueError
        If ``colour`` is not a quantity of :data:`COLOUR`.
    """
    colour, runs = _known(colour), np.asarray(runs, dtype=float)
    ax.plot(x, np.median(runs, axis=0), color=colour, label=label, **line)
    ax.fill_between(x, runs.min(axis=0), runs.max(axis=0), color=colour, alpha=0.22, linewidth=0)


def _known(colour: str) -> str:
    """The colour of a quantity."""
    if colour not in COLOUR:
        raise ValueError(f"colour must be one of {', '.join(COLOUR)}, got {colour!r}")
    return COLOUR[colour]

"""Describes what a matplotlib figure drew, in a notebook's output beside the picture.

``%load_ext nbval_numbers.figures``, or :data:`LOAD` in a kernel, gives each figure that is shown a second type,
:data:`MIME`: its titles, labels, legends, texts and axes, and the data of what it drew, of much data a summary.
:mod:`.compare` compares these. The module stands alone, as kernels of other environments load it; NumPy and
matplotlib are imported with the first figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MIME = "application/vnd.nbval.figure+json"
"""The type under which an output describes a figure."""

LOAD = f'__import__("runpy").run_path({__file__!r})["load_ipython_extension"](get_ipython())'
"""A line of code that has a kernel describe its figures, whichever environment it runs in."""

SAMPLES = 160
"""How many numbers a figure's description holds, about: shared between its artists, 4 to 16 for each."""

KINDS = {
    "Line2D": "line",
    "AxesImage": "heat map",
    "QuadMesh": "heat map",
    "PathCollection": "points",
    "QuadContourSet": "contour",
    "LineCollection": "lines",
    "Rectangle": "rectangle",
    "FillBetweenPolyCollection": "area",
    "PolyCollection": "area",
}


def load_ipython_extension(ipython) -> None:
    """Have IPython describe each figure that it shows."""
    ipython.display_formatter.mimebundle_formatter.for_type_by_name(
        "matplotlib.figure", "Figure", lambda figure: {MIME: describe(figure)}
    )


def describe(figure: Figure) -> dict[str, dict]:
    """Describe what a figure drew.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Drawn or not yet; it is left as it is.

    Returns
    -------
    dict of str to dict
        ``figure`` and ``axes 1`` …, each with its texts, and the axes with what is ``drawn``: a kind, a label, and
        data in the words of :func:`summary`. Artists of one kind and label are taken together and counted.
    """
    parts = {"figure": {"texts": lines(figure.texts), "legend": legend(*figure.legends)}}
    parts |= {f"axes {k}": axes(ax) for k, ax in enumerate(figure.axes, 1)}
    drawn = [artist for part in parts.values() for artist in part.get("drawn", ())]
    vectors = sum(not isinstance(value, str | int) for artist in drawn for value in artist.values())
    samples = min(16, max(4, SAMPLES // max(vectors, 1)))
    for artist in drawn:
        for name, value in artist.items():
            if not isinstance(value, str | int):
                artist[name] = summary(value, samples)
    return {name: {key: value for key, value in part.items() if value} for name, part in parts.items()}


def summary(values, samples: int = 16) -> str:
    """Put numbers into words: all of them if they are few, else their range, mean and a few spread over them.

    Examples
    --------
    >>> summary([0, 0.5, float("nan")])
    'n=3 at=0,0.5,nan'
    >>> summary(range(100), samples=4)
    'n=100 min=0 max=99 mean=49.5 at=0,33,66,99'
    """
    import numpy as np

    values = np.ma.filled(np.ma.asarray(values, dtype=float), math.nan)
    size, values = "x".join(map(str, values.shape)), values.ravel()
    some = values
    if values.size > samples + 3:  # three more would tell them all
        some = values[np.linspace(0, values.size - 1, samples).round().astype(int)]
        finite = values[np.isfinite(values)]
        if finite.size:
            size += "".join(f" {name}={getattr(finite, name)():.6g}" for name in ("min", "max", "mean"))
    return f"n={size} at={','.join(f'{value:.6g}' for value in some)}"


def axes(ax: Axes) -> dict:
    """One part of a description: texts, the two or three axes, and the artists."""
    part = {"title": "\n".join(filter(None, (ax.get_title(loc) for loc in ("left", "center", "right"))))}
    for name in "xyz":
        if axis := getattr(ax, f"{name}axis", None):
            part[f"{name} label"] = axis.get_label_text()
            part[f"{name} scale"] = axis.get_scale().replace("linear", "")
            part[f"{name} limits"] = summary(axis.get_view_interval())
            part[f"{name} ticks"] = ticks(axis)
    part |= {"legend": legend(ax.get_legend()), "texts": lines(ax.texts)}
    if ax.get_label() != "<colorbar>" and ax.name != "3d":  # the data behind a projection are not told
        part["drawn"] = list(drawn(ax))
    return part


def lines(texts) -> str:
    """The words of several texts, one a line."""
    return "\n".join(text.get_text() for text in texts if text.get_text() and text.get_visible())


def legend(*legends) -> str:
    """The words of legends."""
    return "\n".join(lines([one.get_title(), *one.get_texts()]) for one in legends if one)


def ticks(axis: Axis) -> str:
    """The words at ticks that the author has set; those that matplotlib chooses follow from the limits."""
    from matplotlib.category import StrCategoryLocator
    from matplotlib.ticker import FixedLocator

    if not isinstance(locator := axis.get_major_locator(), FixedLocator | StrCategoryLocator):
        return ""
    return "\n".join(filter(None, map(str, axis.get_major_formatter().format_ticks(locator()))))


def drawn(ax: Axes) -> Iterator[dict]:
    """What was drawn: artists of one kind and label together, with their data one behind another."""
    import numpy as np

    # Bars, error bars and stems carry their label on the whole.
    owners = {id(part): whole for whole in ax.containers for part in whole.get_children()}
    groups: dict[tuple[str, str], list[dict]] = {}
    for artist in [*ax.lines, *ax.patches, *ax.collections, *ax.images]:
        if artist.get_visible():
            owner = owners.get(id(artist))
            kind = type(artist).__name__
            kind = "bar" if owner and kind == "Rectangle" else KINDS.get(kind, kind)
            label = str((owner or artist).get_label() or "")
            groups.setdefault((kind, "" if label.startswith("_") else label), []).append(data(artist))
    for (kind, label), several in groups.items():
        found = {"kind": kind, "label": label, "count": len(several)}
        for name in several[0]:
            found[name] = several[0][name]
            if len(several) > 1:
                found[name] = np.ma.concatenate([np.ma.ravel(one[name]) for one in several])
        yield found


def data(artist) -> dict:
    """The numbers that an artist shows; none for arrows and boxes, which are placed by the layout."""
    import numpy as np
    from matplotlib.collections import PathCollection, QuadMesh
    from matplotlib.contour import ContourSet
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle

    match artist:
        case Line2D():
            return dict(zip("xy", artist.get_data(orig=False), strict=True))
        case Rectangle():
            return {name: [getattr(artist, f"get_{name}")()] for name in ("x", "y", "width", "height")}
        case FancyArrowPatch() | FancyBboxPatch():
            return {}
        case ContourSet():
            return {"levels": artist.levels}
        case AxesImage() | QuadMesh():
            return {"values": artist.get_array()}
        case PathCollection():
            paths = [np.ma.filled(artist.get_offsets(), math.nan)]
        case Patch():
            paths = [artist.get_patch_transform().transform_path(artist.get_path()).vertices]
        case _:
            paths = [path.vertices for path in artist.get_paths()]
    found = {name: [v for path in paths for v in path[:, k]] for k, name in enumerate("xy")}
    colours = getattr(artist, "get_array", lambda: None)()
    return found if colours is None else found | {"values": colours}

"""Drawings in the book's colours: wires, boxes and symbols instead of data."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from lstm_lib.book.plots import COLOUR, INK

CELL_SIZE = (5.4, 3.8)
"""Width and height of a figure that :func:`cell` fills, in inches: its smallest text stays legible on a phone."""

UNROLLED_SIZE = (5.6, 2.0)
"""Width and height of a figure that :func:`recurrent` fills, in inches."""

RADIUS = 0.3
"""Of the circles, in units of the drawing."""

HALF = 0.5
"""Half the side of a recurrent network's unit."""

Point = tuple[float, float]


def cell(ax: Axes, forget_gate: bool = True) -> None:
    """Draw one step of an LSTM cell, each wire in the colour of what it carries.

    The cell state runs along the top from the left to the right, the hidden state along the bottom. Draw it in a
    figure of :data:`CELL_SIZE`, with no other axes.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw; the drawing sets its limits and hides its frame.
    forget_gate : bool
        Without it, this is the cell of Hochreiter & Schmidhuber 1997, whose state only adds up.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots(figsize=CELL_SIZE)
    >>> cell(ax)
    >>> {"$f_t$", "$i_t$", "$g_t$", "$o_t$"} <= {text.get_text() for text in ax.texts}
    True
    >>> plt.close(figure)
    """
    ax.set(xlim=(-1.35, 11.35), ylim=(-0.6, 8.1), aspect="equal")
    ax.axis("off")
    ax.add_patch(
        FancyBboxPatch(
            (0.1, 0.35),
            10.05,
            7.5,
            boxstyle="round,pad=0,rounding_size=0.5",
            facecolor=INK,
            edgecolor="none",
            alpha=0.09,
        )
    )
    state, bus = 6.7, 1.15  # heights of the two wires that cross the cell
    f, i, g, o, out = 1.7, 3.5, 5.3, 7.3, 9.0  # columns: the four boxes, and where h is made
    r = RADIUS

    # [h_{t-1}, x_t], which every box reads, along the bottom
    _wire(ax, "hidden", [(-0.2, bus), (0.85, bus)])
    _wire(ax, "x", [(0.85, 0.1), (0.85, bus), (o, bus)])
    _label(ax, (-0.25, bus), "$h_{t-1}$", "hidden", ha="right")
    _label(ax, (0.85, -0.2), "$x_t$", "x")

    # c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t, along the top
    _label(ax, (-0.25, state), "$c_{t-1}$", "cell", ha="right")
    _label(ax, (10.45, state), "$c_t$", "cell", ha="left")
    if forget_gate:
        _wire(ax, "cell", [(-0.2, state), (f - r, state)], width=2.6)
        _wire(ax, "cell", [(f + r, state), (g - r, state)], width=2.6)
        _box(ax, "forget", f, bus, r"$\sigma$", "forget")
        _wire(ax, "forget", [(f, 3.3), (f, state - r)], arrow=True)
        _symbol(ax, "forget", (f, state), "x")
        _label(ax, (f + 0.2, 4.3), "$f_t$", "forget", ha="left")
        _word(ax, (f, state + 0.65), "keep")
    else:
        _wire(ax, "cell", [(-0.2, state), (g - r, state)], width=2.6)
        _word(ax, (2.3, state + 0.65), "keeps everything")
    _box(ax, "input", i, bus, r"$\sigma$", "input")
    _box(ax, "candidate", g, bus, r"$\tanh$", "candidate")
    _wire(ax, "input", [(i, 3.3), (i, 4.9), (g - r, 4.9)], arrow=True)
    _wire(ax, "candidate", [(g, 3.3), (g, 4.9 - r)], arrow=True)
    _wire(ax, "cell", [(g, 4.9 + r), (g, state - r)], arrow=True)
    _wire(ax, "cell", [(g + r, state), (10.4, state)], width=2.6, arrow=True)
    _symbol(ax, "cell", (g, 4.9), "x")
    _symbol(ax, "cell", (g, state), "+")
    _label(ax, (i + 0.2, 4.3), "$i_t$", "input", ha="left")
    _label(ax, (g + 0.2, 4.0), "$g_t$", "candidate", ha="left")
    _word(ax, (g, state + 0.65), "write")

    # h_t = o_t ⊙ tanh(c_t), down the right side
    _box(ax, "output", o, bus, r"$\sigma$", "output")
    _wire(ax, "output", [(o, 3.3), (o, 3.85), (out - r, 3.85)], arrow=True)
    _wire(ax, "cell", [(out, state), (out, 5.68)])
    _wire(ax, "cell", [(out, 5.02), (out, 3.85 + r)], arrow=True)
    _pill(ax, "cell", (out, 5.35), r"$\tanh$")
    _symbol(ax, "hidden", (out, 3.85), "x")
    _wire(ax, "hidden", [(out, 3.85 - r), (out, bus), (10.4, bus)], width=2.6, arrow=True)
    _label(ax, (o + 0.75, 4.25), "$o_t$", "output")
    _label(ax, (10.45, bus), "$h_t$", "hidden", ha="left")
    _word(ax, (out + 0.2, 3.2), "show", ha="left")


def recurrent(ax: Axes, steps: int = 4, backward: bool = False) -> None:
    """Draw a recurrent network of one unit, folded and unrolled, or unrolled with the gradient's way back.

    Draw it in a figure of :data:`UNROLLED_SIZE`, with no other axes.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw; the drawing sets its limits and hides its frame.
    steps : int
        How many steps to unroll.
    backward : bool
        Draw what one step back multiplies the gradient by, in the folded network's place.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots(figsize=UNROLLED_SIZE)
    >>> recurrent(ax, steps=3)
    >>> [text.get_text() for text in ax.texts if "x_" in text.get_text()]
    ['$x_t$', '$x_1$', '$x_2$', '$x_3$']
    >>> plt.close(figure)
    """
    first, apart = (0.0, 2.3) if backward else (3.6, 2.1)
    units = [first + apart * k for k in range(steps)]
    ax.set(xlim=(first - 5.2 * (not backward) - 1.2 * backward, units[-1] + 1.6), ylim=(-2.2, 1.9), aspect="equal")
    ax.axis("off")
    if not backward:
        _unit(ax, 0.0, "$x_t$")
        _wire(ax, "hidden", [(HALF, 0), (1.2, 0), (1.2, 1.1), (-1.2, 1.1), (-1.2, 0), (-HALF, 0)], arrow=True)
        _label(ax, (0, 1.45), "$h_t$", "hidden")
        _label(ax, (-0.88, 0.32), "$w$", "hidden")
        _label(ax, (1.9, 0), "=", "x")
    _label(ax, (units[0] - 1.15, 0), "$h_0$", "hidden")
    for k, at in enumerate(units, 1):
        _wire(ax, "hidden", [(at - apart + HALF if k > 1 else at - 0.85, 0), (at - HALF, 0)], arrow=True)
        _unit(ax, at, f"$x_{k}$")
        if k < steps and not backward:
            _label(ax, (at + apart / 2, 0.35), f"$h_{k}$", "hidden")
            _label(ax, (at + apart / 2, -0.35), "$w$", "hidden")
        if k > 1 and backward:
            back = FancyArrowPatch(
                (at - 0.1, HALF + 0.08),
                (at - apart + 0.1, HALF + 0.08),
                connectionstyle="arc3,rad=0.4",
                arrowstyle="-|>",
                mutation_scale=15,
                linewidth=1.8,
                color=COLOUR["warning"],
            )
            ax.add_patch(back)
            ax.text(
                at - apart / 2,
                1.5,
                rf"$\times\, w\,(1-h_{k}^2)$",
                color=COLOUR["warning"],
                size=11,
                ha="center",
                va="center",
            )
    _wire(ax, "hidden", [(units[-1] + HALF, 0), (units[-1] + 1.0, 0)], arrow=True)
    _label(ax, (units[-1] + 1.3, 0), f"$h_{steps}$", "hidden")


def _unit(ax: Axes, x: float, read: str) -> None:
    """A unit of a recurrent network, and what it reads."""
    _wire(ax, "x", [(x, -1.5), (x, -HALF)], arrow=True)
    _label(ax, (x, -1.85), read, "x")
    _label(ax, (x + 0.3, -1.05), "$u$", "x")
    ax.add_patch(
        FancyBboxPatch(
            (x - HALF, -HALF),
            2 * HALF,
            2 * HALF,
            boxstyle="round,pad=0,rounding_size=0.2",
            facecolor=(COLOUR["rnn"], 0.1),
            edgecolor=COLOUR["rnn"],
            linewidth=1.6,
        )
    )
    ax.text(x, 0, r"$\tanh$", color=COLOUR["rnn"], size=11, ha="center", va="center")


def _wire(ax: Axes, quantity: str, points: Sequence[Point], width: float = 1.8, arrow: bool = False) -> None:
    """A line through the points, with an arrow head at its end."""
    colour = COLOUR[quantity]
    ax.plot(
        *zip(*points, strict=True), color=colour, linewidth=width, solid_joinstyle="round", solid_capstyle="butt"
    )
    if arrow:
        ax.add_patch(
            FancyArrowPatch(
                points[-2],
                points[-1],
                arrowstyle="-|>",
                mutation_scale=11 + 2 * width,
                linewidth=0,
                color=colour,
                shrinkA=0,
                shrinkB=0,
            )
        )


def _box(ax: Axes, quantity: str, x: float, bus: float, function: str, name: str) -> None:
    """A layer with its function and name, fed from the bus below."""
    _wire(ax, "x", [(x, bus), (x, 1.9)], arrow=True)
    ax.add_patch(
        FancyBboxPatch(
            (x - 0.82, 1.9),
            1.64,
            1.4,
            boxstyle="round,pad=0,rounding_size=0.2",
            facecolor=(COLOUR[quantity], 0.1),
            edgecolor=COLOUR[quantity],
            linewidth=1.6,
        )
    )
    ax.text(x, 2.86, function, color=COLOUR[quantity], size=13.5, ha="center", va="center")
    ax.text(x, 2.26, name, color=COLOUR[quantity], size=9.2, ha="center", va="center")


def _pill(ax: Axes, quantity: str, at: Point, function: str) -> None:
    """A function without weights, on a wire."""
    x, y = at
    ax.add_patch(
        FancyBboxPatch(
            (x - 0.6, y - 0.32),
            1.2,
            0.64,
            boxstyle="round,pad=0,rounding_size=0.32",
            facecolor="none",
            edgecolor=COLOUR[quantity],
            linewidth=1.6,
        )
    )
    ax.text(x, y, function, color=COLOUR[quantity], size=12, ha="center", va="center")


def _symbol(ax: Axes, quantity: str, at: Point, sign: str) -> None:
    """An elementwise product (``x``) or sum (``+``) in a circle."""
    ax.add_patch(Circle(at, RADIUS, facecolor="none", edgecolor=COLOUR[quantity], linewidth=1.6))
    ax.plot(*at, marker=sign, markersize=7, color=COLOUR[quantity], markeredgewidth=1.6)


def _label(ax: Axes, at: Point, text: str, quantity: str, ha: str = "center") -> None:
    """The symbol of what a wire carries."""
    ax.text(*at, text, color=COLOUR[quantity], size=13.5, ha=ha, va="center")


def _word(ax: Axes, at: Point, text: str, ha: str = "center") -> None:
    """What a part of the cell is for."""
    ax.text(*at, text, color=INK, size=10.5, style="italic", ha=ha, va="center")

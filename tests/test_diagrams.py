"""The drawing of the cell: readable, in the book's colours, and a true picture of the equations."""

from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from lstm_lib.book import diagrams, plots

PHONE = 350  # pixels that a figure has on a screen of 390


@pytest.fixture(params=[True, False], ids=["2000", "1997"])
def ax(request):
    with mpl.rc_context():
        plots.style()
        figure, ax = plt.subplots(figsize=diagrams.CELL_SIZE)
        diagrams.cell(ax, forget_gate=request.param)
        figure.canvas.draw()
        yield ax
        plt.close(figure)


def texts(ax):
    return {text.get_text(): text for text in ax.texts}


def colours(ax):
    lines = [line.get_color() for line in ax.lines]
    edges = [p.get_edgecolor() for p in ax.patches if p.get_edgecolor()[3] > 0]
    return {to_hex(c) for c in [*lines, *edges, *(text.get_color() for text in ax.texts)]}


def inside(box, other):
    return other.x0 <= box.x0 < box.x1 <= other.x1 and other.y0 <= box.y0 < box.y1 <= other.y1


def has_forget_gate(ax):
    return "$f_t$" in texts(ax)


def test_texts_keep_apart_and_stay_inside(ax):
    boxes = [(text.get_text(), text.get_window_extent()) for text in ax.texts]
    assert len(boxes) > 14
    for (a, box), (b, other) in combinations(boxes, 2):
        assert not box.overlaps(other), (a, b)
    for name, box in boxes:
        assert inside(box, ax.bbox), name


def test_the_names_of_the_boxes_fit_into_them(ax):
    boxes = [p.get_window_extent() for p in ax.patches if isinstance(p, FancyBboxPatch)]
    small = [box for box in boxes if box.width < ax.bbox.width / 2]
    for name in {"forget", "input", "candidate", "output"} & set(texts(ax)):
        assert any(inside(texts(ax)[name].get_window_extent(), box) for box in small), name


def test_legible_on_a_phone(ax):
    pixels_per_point = PHONE / (72 * diagrams.CELL_SIZE[0])
    assert min(text.get_size() for text in ax.texts) * pixels_per_point >= 8


def test_in_the_books_colours_on_no_ground(ax):
    quantities = {"input", "forget", "candidate", "output", "cell", "hidden", "x"}
    if not has_forget_gate(ax):
        quantities.remove("forget")
    assert colours(ax) == {plots.COLOUR[name] for name in quantities} | {plots.INK}
    assert not ax.axison
    assert ax.figure.get_facecolor()[3] == 0


def test_every_arrow_ends_at_something(ax):
    """On the rim of a circle, on the edge of a box, or outside of the cell."""
    frame = next(p for p in ax.patches if isinstance(p, FancyBboxPatch)).get_bbox()
    circles = [p for p in ax.patches if isinstance(p, Circle)]
    boxes = [p.get_bbox() for p in ax.patches if isinstance(p, FancyBboxPatch)][1:]
    arrows = [p for p in ax.patches if isinstance(p, FancyArrowPatch)]
    assert len(arrows) >= 10
    for arrow in arrows:
        x, y = arrow._posA_posB[1]
        on_circle = any(
            abs(((x - c.center[0]) ** 2 + (y - c.center[1]) ** 2) ** 0.5 - c.radius) < 1e-9 for c in circles
        )
        on_box = any(b.x0 <= x <= b.x1 and abs(y - b.y0) < 1e-9 for b in boxes)
        assert on_circle or on_box or x > frame.x1, (x, y)


def test_the_circles_are_the_equations(ax):
    """c = f ⊙ c + i ⊙ g and h = o ⊙ tanh(c): a product and a sum in the one, a product in the other."""
    signs = sorted(line.get_marker() for line in ax.lines if line.get_marker() in ("x", "+"))
    assert signs == ["+"] + ["x"] * (3 if has_forget_gate(ax) else 2)


def test_the_cell_of_1997_is_the_same_without_its_forget_gate():
    figure, (now, then) = plt.subplots(1, 2)
    diagrams.cell(now)
    diagrams.cell(then, forget_gate=False)
    shared = {
        name: text.get_position() for name, text in texts(now).items() if name not in ("forget", "$f_t$", "keep")
    }
    assert shared.items() <= {name: text.get_position() for name, text in texts(then).items()}.items()
    assert set(texts(then)) - set(shared) == {"keeps everything"}
    plt.close(figure)

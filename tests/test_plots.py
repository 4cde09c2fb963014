"""The book's colours, judged by the formulas of WCAG 2.2 and of colour vision."""

import re
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lstm_lib.book import plots

QUANTITIES = ("input", "forget", "candidate", "output", "cell", "hidden")
STYLE = (Path(__file__).parent.parent / "book" / "_static" / "book.css").read_text(encoding="utf-8")
PAGES = {"light": "#ffffff", "dark": "#14181e"}
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB
VISION = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def linear(colour: str | tuple[float, ...]) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ rgb.clip(0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", plots.COLOUR)
def test_every_colour_stands_out_from_both_pages(name, page):
    low, high = sorted(linear(c) @ LUMINANCE + 0.05 for c in (plots.COLOUR[name], PAGES[page]))
    assert high / low >= 3  # WCAG 1.4.11, graphical objects


@pytest.mark.parametrize("page", PAGES)
def test_text_can_be_read_on_both_pages(page):
    (brighter,) = re.findall(r'"dark"\] \.bd-article img { filter: brightness\(([\d.]+)\)', STYLE)
    factor = float(brighter) if page == "dark" else 1.0
    ink = linear(tuple(np.minimum(1, factor * np.array(to_rgb(plots.INK))))) @ LUMINANCE
    low, high = sorted((ink + 0.05, linear(PAGES[page]) @ LUMINANCE + 0.05))
    assert high / low >= 4.5  # WCAG 1.4.3


@pytest.mark.parametrize("vision", VISION)
def test_the_quantities_of_a_cell_differ_for_every_eye(vision):
    seen = {name: lab(VISION[vision] @ linear(plots.COLOUR[name])) for name in QUANTITIES}
    for a, b in combinations(QUANTITIES, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 20, (a, b)


def test_figures_are_transparent_and_their_ink_is_the_books():
    with mpl.rc_context():
        plots.style()
        figure, ax = plt.subplots()
        assert figure.get_facecolor()[3] == ax.get_facecolor()[3] == 0
        assert ax.xaxis.label.get_color() == plots.INK
        plt.close(figure)


def test_spread_draws_median_and_range():
    figure, ax = plt.subplots()
    plots.spread(ax, [0, 1], [[1, 5], [2, 4], [9, 0]], "three seeds", "lstm")
    assert ax.lines[0].get_ydata().tolist() == [2, 4]
    band = ax.collections[0].get_paths()[0].vertices
    assert {(0, 1), (0, 9), (1, 0), (1, 5)} <= {tuple(p) for p in band}
    plt.close(figure)


def test_spread_knows_the_colours_of_the_book_only():
    figure, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"^colour must be one of input, forget, .*, got 'purple'$"):
        plots.spread(ax, [0, 1], [[1, 5]], "a seed", "purple")
    assert not ax.lines
    plt.close(figure)


def on_page(colour: tuple[float, ...], page: str) -> np.ndarray:
    """What a colour with its opacity looks like on a page, whose style may brighten figures: L*, a*, b*."""
    (brighter,) = re.findall(r'"dark"\] \.bd-article img { filter: brightness\(([\d.]+)\)', STYLE)
    factor = float(brighter) if page == "dark" else 1.0
    *rgb, opacity = colour
    seen = opacity * np.minimum(1, factor * np.array(rgb)) + (1 - opacity) * np.array(to_rgb(PAGES[page]))
    return lab(linear(tuple(seen)))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["lstm", "baseline", "hidden"])
def test_shades_begin_at_the_page_and_every_tenth_can_be_told_from_the_next(name, page):
    shades = plots.shades(name)
    steps = [on_page(shades(value), page) for value in np.linspace(0, 1, 11)]
    assert np.linalg.norm(steps[0] - lab(linear(PAGES[page]))) < 1e-9
    assert min(np.linalg.norm(a - b) for a, b in pairwise(steps)) > 2


@pytest.mark.parametrize("page", PAGES)
def test_no_heat_map_of_a_chapter_begins_in_a_white_that_hides_its_first_values(page):
    for path in (Path(__file__).parent.parent / "notebooks").glob("*/*.ipynb"):
        for name in set(re.findall(r'cmap=\\"(\w+)\\"', path.read_text(encoding="utf-8"))):
            first, next_one = (on_page(mpl.colormaps[name](value), page) for value in (0.0, 0.1))
            assert np.linalg.norm(first - next_one) > 2, (path.stem, name)


def test_shades_know_the_colours_of_the_book_only():
    with pytest.raises(ValueError, match=r"^colour must be one of input, forget, .*, got 'purple'$"):
        plots.shades("purple")


@pytest.mark.parametrize("name", ["cell.svg", "logo.svg"])
def test_drawings_made_by_hand_use_these_colours(name):
    drawing = (Path(__file__).parent.parent / "book" / "_static" / name).read_text(encoding="utf-8")
    used = set(re.findall(r"#[0-9a-fA-F]{6}\b", drawing))
    assert used
    assert used <= {*plots.COLOUR.values(), plots.INK}

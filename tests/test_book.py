"""The book's files fit together, and a book built from them is whole and asks nothing of the network."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from packaging.requirements import Requirement

import lstm_lib
from chapters import chapters, notebook
from lstm_lib.book.claims import MIME
from lstm_lib.book.notebook import GLUE

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("_config.yml", "_toc.yml", "constraints.txt", "book", "lstm_lib", "notebooks", "results", "tools")
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


# The files


@pytest.fixture(scope="module")
def pages() -> list[str]:
    """All pages that `_toc.yml` names."""
    text = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    return re.findall(r"^\s*(?:-\s*file|root):\s*(\S+)", text, re.MULTILINE)


def test_every_page_of_the_contents_exists_once(pages):
    missing = [page for page in pages if not any((ROOT / f"{page}{end}").exists() for end in (".md", ".ipynb"))]
    assert not missing
    assert len(pages) == len(set(pages))


def test_every_page_is_in_the_contents(pages):
    files = [*ROOT.glob("notebooks/**/*.ipynb"), *ROOT.glob("book/**/*.md")]
    written = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for path in files
        if not {".ipynb_checkpoints", "vendor"} & set(path.parts)
    }
    assert written == set(pages)


def test_the_page_of_a_part_lists_its_chapters_in_order():
    opener = {name: ROOT / "book" / "parts" / f"{name.partition('/')[0]}.md" for name in chapters()}
    for page in set(opener.values()):
        listed = re.findall(r"^\{doc\}`/notebooks/(\S+)`$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert listed == [name for name, path in opener.items() if path == page]


def test_conda_installs_what_pip_installs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip[1:] == ["-r requirements.txt", "-c constraints.txt", "-e ."]
    assert pip[0].split() == ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]


def test_constraints_pin_what_the_requirements_pin_and_more():
    pins = [
        dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("requirements.txt", "constraints.txt")
    ]
    assert pins[0].items() <= pins[1].items(), "run `make lock`"
    needed = {re.sub("[-_.]+", "-", name).lower() for name in brought_along(pins[0])}
    assert needed <= pins[1].keys(), "run `make lock`"


def brought_along(names: Iterable[str]) -> set[str]:
    """Everything that packages need in this environment."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        for need in map(Requirement, metadata.requires(name) or ()):
            if need.name not in found and (not need.marker or need.marker.evaluate({"extra": ""})):
                found.add(need.name)
                waiting.append(need.name)
    return found


def test_the_api_page_names_every_module():
    text = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    folder = Path(lstm_lib.__file__).parent
    modules = {".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.py")}
    modules = {name for name in modules if not name.endswith("__init__")}
    assert set(re.findall(r"automodule:: lstm_lib\.([\w.]+)", text)) == modules


def test_files_of_others_have_their_licence():
    vendor = ROOT / "book" / "_static" / "vendor"
    for folder in filter(Path.is_dir, vendor.iterdir()):
        scripts = {path.name for path in folder.glob("*.js")}
        assert len(list(folder.glob("LICENSE*"))) == len(scripts)
    listed = (vendor / "README.md").read_text(encoding="utf-8")
    assert all(path.relative_to(vendor).parts[0] in listed for path in vendor.rglob("*.js"))


# The built pages


@dataclass(eq=False, repr=False)
class Element:
    """A tag with its attributes, the tags around it, and, of a caption or an article, the text inside."""

    tag: str
    attributes: dict[str, str]
    around: list[Element]
    text: str = ""

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def inside(self, tag: str, of_class: str = "") -> bool:
        return any(e.tag == tag and (not of_class or of_class in e.classes) for e in self.around)


@dataclass(eq=False, repr=False)
class Page(HTMLParser):
    """The elements of one page."""

    path: Path
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.open: list[Element] = []
        self.source = self.path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {key: value or "" for key, value in attrs}, list(self.open))
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        while any(e.tag == tag for e in self.open) and self.open.pop().tag != tag:
            pass

    def handle_data(self, data):
        for element in self.open:
            if element.tag in ("article", "figcaption"):
                element.text += data

    def of(self, *tags: str) -> list[Element]:
        return [e for e in self.elements if e.tag in tags]

    @cached_property
    def ids(self) -> list[str]:
        return [e.attributes["id"] for e in self.elements if "id" in e.attributes]


def build(book: Path, out: Path, *options: str) -> Path:
    """Build a book elsewhere, and return where its pages are."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(book)]
    done = subprocess.run([*command, "--path-output", str(out), "-q", *options], capture_output=True, text=True)
    if done.returncode:
        told = re.sub(r"\x1b\[[\d;]*m", "", done.stderr).splitlines()
        pytest.fail("the book does not build:\n" + "\n".join(told[-30:]), pytrace=False)
    return out / "_build" / "html"


def is_current(book: Path) -> bool:
    """Whether `make book` has built the book without a warning, and none of its sources has changed since."""
    made = book / "_build" / ".made"
    files = [path for name in SOURCES for path in (book / name, *(book / name).rglob("*")) if path.is_file()]
    sources = [path for path in files if "__pycache__" not in path.parts]
    return made.exists() and all(path.stat().st_mtime < made.stat().st_mtime for path in sources)


def test_a_built_book_is_current_until_a_source_changes(tmp_path):
    page, made = tmp_path / "book" / "parts" / "page.md", tmp_path / "_build" / ".made"
    for path in (page, made):
        path.parent.mkdir(parents=True)
    page.touch()
    assert not is_current(tmp_path)
    made.touch()
    os.utime(page, (1, 1))
    assert is_current(tmp_path)
    os.utime(page, (made.stat().st_mtime + 1,) * 2)
    assert not is_current(tmp_path)


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """The book of `make book`, or one that is built as it does, elsewhere."""
    if is_current(ROOT):
        return ROOT / "_build" / "html"
    return build(ROOT, tmp_path_factory.mktemp("book"), "-W", "-n", "--keep-going")


@pytest.fixture(scope="module")
def built(html) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(html.rglob("*.html")) if "_static" not in path.parts}


def told(problems: list[str]) -> None:
    assert not problems, "\n".join(problems[:20])


def test_every_page_is_built(html, pages, built):
    assert {html / f"{page}.html" for page in pages} <= set(built)


@pytest.mark.parametrize("chapter", chapters())
def test_a_chapter_s_page_has_all_that_its_notebook_holds(html, built, chapter):
    nb = nbformat.read(notebook(chapter), 4)
    page, code = built[html / "notebooks" / f"{chapter}.html"], [c for c in nb.cells if c.cell_type == "code"]
    words = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    shown = [[out for out in cell.outputs if GLUE not in out.get("data", {})] for cell in code]
    data = [out.get("data", {}) for outputs in shown for out in outputs]
    inside = [e for e in page.elements if e.inside("article")]
    assert {
        "cells": sum("cell_input" in e.classes for e in inside),
        "outputs": sum("cell_output" in e.classes for e in inside),
        "figures": sum(e.tag == "img" for e in inside),
        "tables": sum(e.tag == "table" for e in inside),
        "claims": sum("claim" in e.classes for e in inside),
    } == {
        "cells": len(code),
        "outputs": sum(any(out.get("name") != "stderr" for out in outputs) for outputs in shown),
        "figures": sum("image/svg+xml" in kinds for kinds in data),
        "tables": sum(kinds.get("text/html", "").count("<table") for kinds in data)
        + len(re.findall(r"^\|[-:| ]+\|$", words, re.MULTILINE)),
        "claims": sum(MIME in kinds for kinds in data),
    }
    # Five words and more of a line, without markup between them, stand on the page as they are.
    lines = [line for line in words.splitlines() if not re.match(r"[:`]", line)]
    runs = [run for line in lines for run in re.findall(r"[A-Za-z]+(?: [A-Za-z]+){4,}", line)]
    (article,) = page.of("article")
    text = " ".join(article.text.split())
    told([f"{chapter}: {run}" for run in runs if run not in text])
    assert len(runs) > 50
    assert len(words.split()) > 1000


def test_the_map_has_every_chapter_once_and_needs_none_that_is_later(html, built):
    page, order = built[html / "book" / "intro.html"], chapters()
    links = [e.attributes["href"] for e in page.of("a") if e.inside("svg", "chapter-map")]
    assert links == [f"../notebooks/{name}.html" for name in order]
    needs = [
        (e.attributes["data-from"], e.attributes["data-to"]) for e in page.of("path") if "data-to" in e.attributes
    ]
    assert len(needs) == len(set(needs))
    assert all(order.index(one) < order.index(other) for one, other in needs)
    assert {other for _, other in needs} == set(order[1:])  # only the first needs nothing
    # One that is written in this way, and one that is named after the sentence and not needed.
    assert ("implementation/autograd_function", "implementation/making_it_fast") in needs
    assert ("applications/speech", "applications/spoken_digits") not in needs


def test_no_role_stands_on_a_page_as_it_was_written(html, built):
    """Inside a formula, say, a number for the text is not put in: the page would show ``{glue:text}`…```."""
    raw = re.compile(r"\{(?:glue:text|term|doc|ref|numref|eq|cite:[pt])\}`[^`]*`")
    told(
        [
            f"{chapter}: {found}"
            for chapter in chapters()
            for found in raw.findall(built[html / "notebooks" / f"{chapter}.html"].source)
        ]
    )


def test_every_picture_shows_something(html, built):
    pictures = {}
    for path, page in built.items():
        for e in page.of("img"):
            if e.inside("article"):
                source = e.attributes["src"]
                kind, _, data = source.partition(";base64,")  # the drawing itself, or the address of one
                pictures[source[-200:]] = (
                    base64.b64decode(data).decode()
                    if kind == "data:image/svg+xml"
                    else (path.parent / unquote(source)).read_text(encoding="utf-8")
                )
    # A letter is a path that is used again.
    told([name for name, picture in pictures.items() if len(re.findall("<path|<use", picture)) < 20])


def test_a_citation_has_its_reference_for_a_tip(html, built):
    page = built[html / "notebooks" / "gates" / "the_cell.html"]
    (path,) = (html / "_static" / "tippy" / "notebooks" / "gates").glob("the_cell.*.js")
    tips = json.loads(re.match(r"selector_to_html = (.*)", path.read_text(encoding="utf-8"))[1])
    cited = {e.attributes["href"] for e in page.of("a") if "references.html#" in e.attributes.get("href", "")}
    assert cited
    told([link for link in cited if "citation" not in tips.get(f'a[href="{link}"]', "")])


def test_nothing_is_loaded_from_the_network(html, built):
    problems = []
    for path, page in built.items():
        for e in page.elements:
            loads = e.attributes.get("src", "") + e.attributes.get("srcset", "") + e.attributes.get("data", "")
            if e.tag == "link" and {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch"} & set(
                e.attributes.get("rel", "").split()
            ):
                loads += e.attributes.get("href", "")
            if re.search(r"(https?:)?//", loads):
                problems.append(f"{path.name}: {e.tag} {loads}")
    for style in html.rglob("*.css"):
        found = re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]*", style.read_text(encoding="utf-8"))
        if found:
            problems.append(f"{style.name}: {found[0]}")
    told(problems)


def test_every_link_inside_the_book_leads_somewhere(html, built):
    problems = []
    for path, page in built.items():
        for link in page.of("a"):
            href = link.attributes.get("href", "")
            where = urlsplit(href)
            if where.scheme or where.netloc or href in ("", "#"):
                continue
            target = (path.parent / unquote(where.path)).resolve() if where.path else path
            if not target.exists():
                problems.append(f"{path.relative_to(html)}: {href}")
            elif where.fragment and target in built and unquote(where.fragment) not in built[target].ids:
                problems.append(f"{path.relative_to(html)}: {href} (no such place in the page)")
    told(problems)


def test_ids_are_unique(html, built):
    told(
        [
            f"{path.relative_to(html)}: {name}"
            for path, page in built.items()
            for name in {i for i in page.ids if page.ids.count(i) > 1}
        ]
    )


def test_every_picture_has_words(html, built):
    problems = []
    for path, page in built.items():
        for image in page.of("img"):
            where = f"{path.relative_to(html)}: {image.attributes.get('src')}"
            if "alt" not in image.attributes:
                problems.append(f"{where} has no alternative text")
            elif image.inside("article"):
                if len(image.attributes["alt"].split()) < 5:
                    problems.append(f"{where}: {image.attributes['alt']!r} does not say what it shows")
                if not image.inside("figure"):
                    problems.append(f"{where} is in no figure")
        for figure in page.of("figure"):
            captions = [e.text for e in page.of("figcaption") if figure in e.around]
            if not any(re.match(r"\s*Fig\. \d+(\.\d+)*\s+\w", caption) for caption in captions):
                problems.append(f"{path.relative_to(html)}: {figure.attributes.get('id')} has no numbered caption")
    told(problems)


def test_pages_hold_no_path_of_the_machine_that_built_them(html, built):
    places = [str(place) for place in (ROOT, html, Path.home()) if len(place.parts) > 2]
    told([str(path.relative_to(html)) for path, page in built.items() if any(p in page.source for p in places)])


def test_an_unpublished_book_points_to_no_repository(html, built):
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    if "YOUR_NAME" not in url:
        pytest.skip("the book is published")
    told(
        [
            f"{path.relative_to(html)}: {e.attributes['href']}"
            for path, page in built.items()
            for e in page.of("a")
            if re.search("YOUR_NAME|colab.research|mybinder", e.attributes.get("href", ""))
        ]
    )


# The plain copies, to which the chapters' download buttons lead

COMMONMARK = MarkdownIt("commonmark").enable("table")


def plain_copy(html: Path, chapter: str) -> nbformat.NotebookNode:
    return nbformat.read(html / "_sources" / "notebooks" / f"{chapter}.ipynb", 4)


def squeezed(text: str) -> str:
    """Text without formulas, spaces and the form of quotes, in which a page and its copy differ."""
    text = text.replace("https://github.com/", "")  # the theme shortens such links
    text = re.sub(r"\$\$.*?\$\$|\$[^$]+\$|\\\(.*?\\\)|\\\[.*?\\\]", "", text, flags=re.DOTALL)
    return re.sub(r"\s", "", text).translate(str.maketrans("“”‘’", "\"\"''"))


def paragraphs(source: str) -> list[str]:
    """What a plain renderer shows: the text of paragraphs, headings and cells of tables, without its markup."""
    inline = [token.children for token in COMMONMARK.parse(source) if token.type == "inline"]
    return ["".join(t.content or " " * (t.type == "softbreak") for t in children) for children in inline]


def test_download_buttons_save_a_file(built):
    for path, page in built.items():
        for link in page.of("a"):
            if "btn-download-source-button" in link.classes:
                assert link.attributes["download"] == Path(link.attributes["href"]).name, path
    assert sum("btn-download-source-button" in e.classes for page in built.values() for e in page.of("a")) > 20


@pytest.mark.parametrize("chapter", chapters())
def test_a_plain_copy_is_its_chapter_without_myst(html, chapter):
    nb, copy = nbformat.read(notebook(chapter), 4), plain_copy(html, chapter)
    nbformat.validate(copy)
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    for cell in code:
        folded = {"hide-input"} & set(cell.metadata.get("tags", ()))
        assert not folded or (cell.metadata.cellView, cell.metadata.jupyter.source_hidden) == ("form", True)
        cell.metadata = {key: cell.metadata[key] for key in ("tags", "mystnb") if key in cell.metadata}
    assert code == [cell for cell in nb.cells if cell.cell_type == "code"]
    for source in (cell.source for cell in copy.cells if cell.cell_type == "markdown"):
        assert source.strip()
        for token in COMMONMARK.parse(source):
            assert not (token.type == "fence" and token.info.startswith("{")), token.content
            shown = [child for child in token.children or () if child.type in ("text", "code_inline")]
            for child, following in pairwise([*shown, None]):
                if child.type == "text":
                    assert not re.search(r"^:::|^\([\w-]+\)=$|\$\$ *\([\w-]+\)", child.content), child.content
                    role = re.search(r"\{[\w:]+\}$", child.content)
                    assert not (role and following and following.type == "code_inline"), child.content


@pytest.mark.parametrize("chapter", chapters())
def test_a_plain_copy_reads_as_its_page(html, built, chapter):
    """Each paragraph stands in the built page, and each entry in that of the references, with all its numbers."""
    page = built[html / "notebooks" / f"{chapter}.html"]
    articles = page.of("article") + built[html / "book" / "references.html"].of("article")
    shown = squeezed("".join(article.text for article in articles))
    cells = plain_copy(html, chapter).cells
    words = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    own = ("This is a plain copy of a chapter", "Solution (code)", "Works cited")
    texts = [re.sub(r"^(Fig\. [\d.]+)\. ", r"\1", text) for text in paragraphs(words)]
    told([text for text in texts if squeezed(text) not in shown and not text.startswith(own)])
    assert len(texts) > 50
    assert re.findall(r" \\tag\{([\d.]+)\} \$\$", words) == re.findall(r'eqno">\(([\d.]+)\)', page.source)
    captions = [caption.text.split()[1] for caption in page.of("figcaption")]
    assert re.findall(r"^\*\*Fig\. ([\d.]+)\.\*\*", words, re.MULTILINE) == captions
    assert ("## Works cited" in words) == ("references.html#" in page.source)
    # What the page folds, prose of hints and solutions, is folded in the copy, and nothing else is.
    soups = BeautifulSoup(page.source, "html.parser"), BeautifulSoup(COMMONMARK.render(words), "html.parser")
    for here, there in (soups, reversed(soups)):
        folded = squeezed("".join(fold.text for fold in there.select("article .dropdown, details")))
        prose = here.select("article .dropdown > p:not(.admonition-title), details > p")
        told([text.text for text in prose if squeezed(text.text) not in folded])
        assert len(prose) > 5
    hidden = [cell for cell in cells if cell.metadata.get("jupyter", {}).get("outputs_hidden")]
    assert len(hidden) == len(soups[0].select("article .dropdown .cell"))


def test_a_plain_copy_runs(html, tmp_path):
    copy = plain_copy(html, "gates/the_cell")
    client = NotebookClient(copy, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert all(cell.execution_count for cell in copy.cells if cell.cell_type == "code")


# A second build

CONF = f"""
import sys; sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["myst_nb", "sphinx_codeautolink", "sphinx_tippy", "repairs"]
html_theme = "sphinx_book_theme"
nb_execution_mode = "off"
exclude_patterns = ["out", "jupyter_execute"]
tippy_rtd_urls = []
"""

ENTRIES = """# Entries

```{toctree}
code
```

```{py:function} math.sqrt(x)
```

```{glossary}
gate
  A number between 0 and 1.
```
"""


def test_a_second_build_changes_no_page(tmp_path):
    """Of two small pages: a function and a term, and code that calls the one beside a link to the other."""
    (tmp_path / "conf.py").write_text(CONF)
    (tmp_path / "index.md").write_text(ENTRIES)
    cells = [new_markdown_cell("# Code\n\nA {term}`gate`."), new_code_cell("import math\n\nmath.sqrt(2)")]
    nb = new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(nb, tmp_path / "code.ipynb")
    html, seen = tmp_path / "out", []
    for _ in range(2):
        subprocess.run([sys.executable, "-P", "-m", "sphinx", "-q", ".", html], cwd=tmp_path, check=True)
        # What may vary: names that are new in every build, checksums of what the first had yet to write.
        varies = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\?v=\w+")
        seen.append({path: varies.sub("", path.read_text(encoding="utf-8")) for path in html.rglob("*.html")})
    first, second = seen
    assert {"index.html#math.sqrt", "index.html#term-gate"} <= {
        link.attributes.get("href") for link in Page(html / "code.html").of("a")
    }
    assert any("A number between" in path.read_text() for path in html.glob("_static/tippy/code.*.js"))
    told([str(path) for path in first | second if first.get(path) != second.get(path)])

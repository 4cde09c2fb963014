"""The address of the repository stands once, and everything that needs it follows; published once, in a clone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from clone import clone, git

import repo
import setup_cell
from chapters import ROOT, chapters, notebook

URL = "https://github.com/someone/some-book"
HERE = (ROOT / "_config.yml").read_text(encoding="utf-8")
CONFIG = repo.configured(HERE, setup_cell.PLACEHOLDER)
LAUNCHED = "published"
BRANCH = yaml.safe_load(HERE)["repository"]["branch"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*/*.ipynb"))


def make_repo(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """What `make repo URL=…` runs."""
    command = [sys.executable, "tools/repo.py", *arguments]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True)


def build(folder: Path, *options: str) -> None:
    """What `make book` runs, with the library of the clone."""
    tool = Path(sys.executable).with_name("jupyter-book")
    done = subprocess.run(
        [tool, "build", ".", *options],
        cwd=folder,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-2000:]


def buttons(folder: Path, page: str) -> dict[str, str]:
    """Tooltip and link of every button above a built page."""
    html = (folder / "_build" / "html" / f"{page}.html").read_text(encoding="utf-8")
    links = BeautifulSoup(html, "html.parser").select(".article-header-buttons a[href]")
    return {link["title"]: link["href"] for link in links}


def pages(toc: dict | list | str) -> list[str]:
    """All pages of a table of contents."""
    if isinstance(toc, list):
        return [page for part in toc for page in pages(part)]
    own = [toc[key] for key in ("root", "file") if key in toc]
    return own + [page for key in ("parts", "chapters", "sections") for page in pages(toc.get(key, []))]


CHAPTER = "notebooks/gates/the_cell"
OTHER = "notebooks/gates/recurrence"
SMALL = f"""\
format: jb-book
root: book/intro
parts:
  - numbered: true
    chapters:
      - file: {OTHER}
      - file: {CHAPTER}
  - chapters:
      - file: book/glossary
      - file: book/references
"""
"""A book of few pages. Buttons and links follow from the settings alone, so it tells as much as the whole."""

PAGES = pages(yaml.safe_load(SMALL))


def small(folder: Path) -> Path:
    """A clone of the book that has these pages alone."""
    clone(folder, only=[page.removeprefix("notebooks/") for page in (OTHER, CHAPTER)])
    (folder / "_toc.yml").write_text(SMALL, encoding="utf-8")
    (folder / "book" / "intro.md").write_text("# The article\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def unpublished(tmp_path_factory) -> Path:
    """A clone that is not published."""
    folder = small(tmp_path_factory.mktemp("unpublished"))
    repo.move(setup_cell.PLACEHOLDER, folder)
    git("commit", "--quiet", "--all", "--allow-empty", "--message=not published", at=folder)
    return folder


@pytest.fixture
def book(unpublished) -> Path:
    """That clone, as it was, whatever the last test did to it."""
    git("reset", "--quiet", "--hard", at=unpublished)
    return unpublished


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A clone that is published, and built."""
    folder = small(tmp_path_factory.mktemp("published"))
    done = make_repo(folder, URL)
    assert done.returncode == 0, done.stderr
    assert "\n_config.yml\n" in done.stdout
    build(folder)
    return folder


# The book as it is


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_set_up_cell_follows_from_the_settings_and_there_and_back_changes_no_byte(path):
    text = path.read_text(encoding="utf-8")
    nb = nbformat.reads(text, nbformat.NO_CONVERT)
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert cells[0].source == setup_cell.of(nb, setup_cell.repository_url()), "run `make notebooks`"
    assert {"setup", "hide-input"} <= set(cells[0].metadata.tags)
    assert cells[0].outputs == []
    setup_cell.fill(nb, URL)
    assert f'url = "{URL}"' in cells[0].source
    setup_cell.fill(nb, setup_cell.repository_url())
    assert nbformat.writes(nb) + "\n" == text


def test_settings_follow_from_the_address():
    assert repo.configured(HERE, setup_cell.repository_url()) == HERE


def test_there_are_notebooks():
    assert NOTEBOOKS


# The address


@pytest.mark.parametrize("url", [URL, f"{URL}.git", f"{URL}/", f"{URL}.git/"])
def test_one_form_of_the_address(url):
    assert repo.checked(url) == URL


@pytest.mark.parametrize(
    "url",
    [
        "",
        "someone/some-book",
        "http://github.com/a/b",
        "git@github.com:a/b.git",
        "https://gitlab.com/a/b",
        "https://github.com/a",
        "https://github.com/a/b/tree/main",
        "https://github.com/a/b?x=1",
        "https://github.com/a/b ",
        "https://github.com/a/b\n",
        'https://github.com/a/b"',
        "https://github.com/a/ü",
        "https://github.com/-a/b",
        "https://github.com/a-/b",
        f"https://github.com/{'a' * 40}/b",
        "https://github.com/a/..",
        "https://github.com/a/.git",
        f"https://github.com/a/{'b' * 101}",
        "https://github.com.example.org/a/b",
        "file:///tmp/book",
        setup_cell.PLACEHOLDER,
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match=r"URL must be https://github.com/OWNER/NAME.* got"):
        repo.checked(url)


@pytest.mark.parametrize(
    ("url", "site"),
    [
        (URL, "https://someone.github.io/some-book/"),
        ("https://github.com/Someone/Some-Book", "https://someone.github.io/Some-Book/"),
        ("https://github.com/Someone/someone.github.io", "https://someone.github.io/"),
    ],
)
def test_pages_have_their_address(url, site):
    assert repo.settings(url)["baseurl"] == site


# The settings


def test_settings_change_their_lines_and_no_others():
    before, after = CONFIG.splitlines(), repo.configured(CONFIG, URL).splitlines()
    changed = {old.split(":")[0].strip() for old, new in zip(before, after, strict=True) if old != new}
    assert changed == set(repo.settings(URL))
    comments = [re.findall("#.*", line) for line in before]
    assert comments == [re.findall("#.*", line) for line in after]


def test_settings_are_what_jupyter_book_reads():
    config = yaml.safe_load(repo.configured(CONFIG, URL))
    assert config["repository"]["url"] == URL
    assert config["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    assert config["launch_buttons"]["binderhub_url"] == "https://mybinder.org"
    for button in ("use_repository_button", "use_issues_button", "use_edit_page_button"):
        assert config["html"][button] is True
    assert config["html"]["baseurl"] == "https://someone.github.io/some-book/"


@pytest.mark.parametrize(
    ("old", "new", "count"),
    [
        ("  colab_url:", "  colab:", 0),
        ("  baseurl:", "  baseurl: ''\n  baseurl:", 2),
    ],
)
def test_settings_that_are_not_there_once_are_named(old, new, count):
    setting = old.strip(" :")
    with pytest.raises(ValueError, match=f"{setting} stands on {count} lines, need one"):
        repo.configured(CONFIG.replace(old, new), URL)


# Moving


def test_there_and_back_changes_no_byte(book):
    changed = repo.move(URL, book)
    assert {book / "_config.yml", *(notebook(name, book) for name in chapters(book))} <= set(changed)
    assert repo.move(URL, book) == []
    repo.move("https://github.com/another/fork", book)
    repo.move(setup_cell.PLACEHOLDER, book)
    assert git("status", "--porcelain", at=book) == ""


def test_stopped_move_can_be_repeated(book, monkeypatch):
    page = book / "book" / "intro.md"
    page.write_text(setup_cell.PLACEHOLDER, encoding="utf-8")
    places, real = [], os.replace

    def replace(draft, path):
        places.append(path)
        if len(places) == 2:
            raise KeyboardInterrupt
        real(draft, path)

    with monkeypatch.context() as stopped:
        stopped.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            repo.move(URL, book)
    assert not list(book.rglob(".*.md.*")) + list(book.rglob(".*.ipynb.*")), "no draft is left"
    repo.move(URL, book)
    assert page.read_text(encoding="utf-8") == URL
    assert repo.move(URL, book) == []


def test_address_is_taken_along_wherever_it_is_quoted(book):
    old = setup_cell.PLACEHOLDER
    page = book / "book" / "intro.md"
    page.write_text(f"Clone {old}.git, see {old}/issues, {old}. Not {old}-2.\n", encoding="utf-8")
    repo.move(URL, book)
    assert page.read_text(encoding="utf-8") == f"Clone {URL}.git, see {URL}/issues, {URL}. Not {old}-2.\n"
    # Code keeps it, to know an unpublished book by it. Nowhere else is it left.
    kept = git("grep", "--files-with-matches", "--fixed-strings", old, at=book).split()
    assert {Path(name).parts[0] for name in kept} - {"tools", "tests"} == {"book"}
    assert [name for name in kept if name.startswith("book")] == ["book/intro.md"]


def test_set_up_cells_follow(book):
    repo.move(URL, book)
    for name in chapters(book):
        nb = nbformat.read(notebook(name, book), 4)
        [cell] = [cell for cell in nb.cells if "setup" in cell.metadata.get("tags", [])]
        assert cell.source == setup_cell.of(nb, URL)
        assert f'url = "{URL}"' in cell.source


def test_a_chapter_without_a_set_up_cell_stops_everything(book):
    path = notebook(chapters(book)[-1], book)
    nb = nbformat.read(path, 4)
    nb.cells = [cell for cell in nb.cells if "setup" not in cell.metadata.get("tags", [])]
    nbformat.write(nb, path)
    before = git("diff", at=book)
    with pytest.raises(ValueError, match=f"{path.name}: a chapter needs exactly one code cell tagged"):
        repo.move(URL, book)
    assert git("diff", at=book) == before, "nothing is written"


@pytest.mark.parametrize("arguments", [[], [""], ["https://example.org/a/b"], ["a", "b"]])
def test_wrong_command_line_says_what_is_needed(arguments):
    with pytest.raises(SystemExit, match=r"github\.com/OWNER/NAME"):
        repo.main(arguments)


# The built book


def expected(page: str, source: str) -> dict[str, str]:
    """The buttons of a published page."""
    links = {
        "Source repository": URL,
        "Suggest edit": f"{URL}/edit/{BRANCH}/{source}",
        "Open an issue": f"{URL}/issues/new?title=Issue%20on%20page%20%2F{page}.html"
        "&body=Your%20issue%20content%20here.",
        "Download source file": f"{'../' * page.count('/')}_sources/{source}",
    }
    if source.endswith(".ipynb"):
        links |= {
            "Launch on Colab": f"https://colab.research.google.com/github/someone/some-book/blob/{LAUNCHED}/{source}",
            "Launch on Binder": f"https://mybinder.org/v2/gh/someone/some-book/{LAUNCHED}?urlpath=lab/tree/{source}",
        }
    return links


def test_published_pages_lead_to_their_repository(published):
    html = published / "_build" / "html"
    for page in PAGES:
        [source] = git("ls-files", f"{page}.md", f"{page}.ipynb", at=published).split()
        found = buttons(published, page)
        assert found == expected(page, source)
        download = (html / page).parent / found["Download source file"]
        assert download.exists()
        if source.endswith(".md"):
            assert download.read_bytes() == (published / source).read_bytes()


def test_plain_copies_lead_to_the_published_book(published):
    site = "https://someone.github.io/some-book/"
    copy = nbformat.read(published / f"_build/html/_sources/{CHAPTER}.ipynb", 4)
    words = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    assert f"a chapter of [Long Short-Term Memory, tested]({site}{CHAPTER}.html), for" in words
    links = re.findall(rf"\[([^]]+)\]\({re.escape(site)}([^#)]+)#?([^)]*)\)", words)
    assert ("The article", "book/intro.html", "") in links
    assert ("forget gate", "book/glossary.html", "term-forget-gate") in links
    assert ("(2.5)", f"{CHAPTER}.html", "equation-eq-the-cell-state") in links
    assert {"Fig. 2.1", "below"} <= {text for text, page, _ in links if page == f"{CHAPTER}.html"}
    for _, page, place in links:
        html = (published / "_build" / "html" / page).read_text(encoding="utf-8")
        assert not place or f'id="{place}"' in html


def test_unpublished_book_leads_nowhere(book):
    (book / "_toc.yml").write_text(f"format: jb-book\nroot: book/intro\nchapters: [{{file: {OTHER}}}]\n")
    build(book)
    for page in ("book/intro", OTHER):
        assert list(buttons(book, page)) == ["Download source file"]
    built = "".join(path.read_text(encoding="utf-8") for path in (book / "_build" / "html").rglob("*.html"))
    assert "YOUR_NAME" not in built

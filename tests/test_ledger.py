"""The ledger is made from the executed notebooks, and a build ends where evidence is missing or fails."""

import json
import re
import shutil
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import building
import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from sphinx.errors import ExtensionError

import mutants
import surprises
from chapters import ROOT, chapters, notebook
from lstm_lib.book.claims import MIME, from_notebook, registry

CHAPTER, OTHER = SMALL = ["gates/the_cell", "gates/vanishing_gradients"]
"""Two chapters that give evidence: for most tests, the whole book."""

QUOTED = sorted(
    {
        quoted
        for page in [*ROOT.glob("book/**/*.md"), *ROOT.glob("notebooks/*/*.ipynb")]
        for quoted in re.findall(r"\{measured\}`([\w/]+)#([^`]+)`", page.read_text(encoding="utf-8"))
    }
)
"""Chapter and words of an anchor, as pages quote them."""

CONF = """
import os, sys; sys.path.insert(0, os.path.abspath("book/_ext"))
extensions = ["myst_nb", "sphinxcontrib.bibtex", "ledger"]
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
bibtex_bibfiles = ["references.bib"]
exclude_patterns = ["notebooks"]
suppress_warnings = ["myst", "bibtex", "toc"]
"""


class Text(HTMLParser):
    """The text of a page, and where its links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.links = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.links += [value for key, value in attrs if (tag, key) == ("a", "href")]

    def handle_data(self, data):
        self.words.append(data)


def lay_out(folder: Path, names: list[str]) -> Path:
    """A book of these chapters, and pages with the directives."""
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in names:
        notebook(name, folder).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(notebook(name), notebook(name, folder))
    toc = {"root": "index", "chapters": [{"file": f"notebooks/{name}"} for name in names]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
    (folder / "book" / "_ext").mkdir(parents=True)
    shutil.copy(ROOT / "book" / "_ext" / "ledger.py", folder / "book" / "_ext")
    shutil.copy(ROOT / "book" / "references.bib", folder)
    (folder / "lstm_lib" / "book").mkdir(parents=True)
    shutil.copy(ROOT / "lstm_lib" / "book" / "claims.toml", folder / "lstm_lib" / "book")
    (folder / "conf.py").write_text(CONF)
    (folder / "index.md").write_text(
        "# Ledger\n\n"
        + "".join(
            f"```{{{directive}}}\n```\n\n"
            for directive in ("claims-count", "claims-filter", "claims-ledger", "run-times", "bibliography")
        )
    )
    (folder / "article.md").write_text(
        "---\norphan: true\n---\n\n# Article\n\n```{article-strip}\n```\n\n```{article-tables}\n```\n"
    )
    return folder


@pytest.fixture
def book(tmp_path) -> Path:
    return lay_out(tmp_path, SMALL)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, str]:
    """The ledger and the article's page, from the chapters as they are."""
    folder = lay_out(tmp_path_factory.mktemp("built"), chapters())
    done, said = build(folder)
    assert done, said
    return {name: (folder / "out" / f"{name}.html").read_text() for name in ("index", "article")}


def build(book: Path) -> tuple[bool, str]:
    """Whether Sphinx built it, and the page or what it said."""
    done, said = building.build(book)
    return done, (book / "out" / "index.html").read_text() if done else said


def edit(book: Path, chapter: str, change) -> None:
    """Change the evidence of a chapter's first claim."""
    path = notebook(chapter, book)
    nb = json.loads(path.read_text())
    first = next(
        out["data"][MIME] for cell in nb["cells"] for out in cell.get("outputs", []) if MIME in out.get("data", {})
    )
    change(first)
    path.write_text(json.dumps(nb))


def test_every_claim_is_shown_and_every_measure_leads_to_its_place(built):
    text = Text(built["index"])
    evidence = [one for name in chapters() for one in from_notebook(notebook(name))]
    tested = {one.claim for one in evidence}
    count = re.sub(r"\s+", " ", " ".join(text.words))
    assert f"{len(tested)} claims are tested." in count
    untested = len(registry()) - len(tested) - 1
    assert "1 not testable" in count
    assert (f"{untested} not yet tested" in count) == (untested > 0)
    # of those that are neither, each, the count where there are any, and the choice of the filter
    assert sum("not yet tested" in word for word in text.words) == untested + (untested > 0) + 1
    for claim in registry().values():
        assert claim.id in text.words
    for one in evidence:
        assert f"notebooks/{one.chapter}.html#{one.anchor}" in text.links
        assert one.measured in text.words


def test_the_article_is_shown_whole_and_in_its_own_order(built):
    soup = BeautifulSoup(built["article"], "html.parser")
    rows = {row.a.text: row for row in soup.select("tbody tr")}
    of_the_article = [claim for claim in registry().values() if claim.source.startswith("article")]
    section = {claim.id: [int(n) for n in re.findall(r"\d", claim.source)] for claim in of_the_article}
    assert list(rows) == sorted(section, key=section.get)
    assert [a["href"] for a in soup.select(".claim-strip a")] == [
        f"book/claims.html#{name.lower()}" for name in rows
    ]
    tested = {one.claim for name in chapters() for one in from_notebook(notebook(name))}
    for claim in of_the_article:
        _, statement, found = (" ".join(cell.text.replace("’", "'").split()) for cell in rows[claim.id]("td"))
        assert statement == claim.statement
        words = claim.verdict.replace("true when", "true when …") if claim.id in tested else "not yet tested"
        if claim.verdict == "not testable":
            words = claim.verdict
        assert found.startswith(words)
        assert found.endswith(claim.note) or words == "not yet tested"
    page = str(soup.body)
    assert page.index("claim-strip") < page.index("Of 34 sentences") < page.index("<table")
    told = soup.select_one(".claim-strip").find_next("p").text
    first, *numbers = (int(n) for n in re.findall(r"\d+", told))
    assert first == sum(numbers) == len(of_the_article)


def test_the_filters_of_the_ledger_know_each_claim(built):
    page = built["index"]
    soup = BeautifulSoup(page, "html.parser")
    choices = {
        select["name"]: {option["value"] for option in select("option")} - {""}
        for select in soup.select("form.ledger-filter select")
    }
    entries = soup.select(".claim")
    classes = {entry.select_one(".claim-id").text: set(entry["class"]) for entry in entries}
    assert len(entries) == len(classes) == len(registry())
    assert all(entry.find(id=entry.select_one(".claim-id").text.lower()) for entry in entries)
    tested = {one.claim for name in chapters() for one in from_notebook(notebook(name))}
    for claim in registry().values():
        (kind,) = {name for name in choices["verdict"] if f"verdict-{name}" in classes[claim.id]}
        assert (kind not in ("open", "none")) == (claim.id in tested)
        parts = {name for name in choices["part"] if f"part-{name}" in classes[claim.id]}
        assert parts == {chapter.partition("/")[0] for chapter in claim.chapters}
        seen = {name for name in choices["seen"] if f"seen-{name}" in classes[claim.id]}
        assert len(seen) == (claim.id in tested)
    assert page.index("ledger-filter") < page.index("claim-id")
    # Without a script there is no form, and every claim stands under a heading that the contents show.
    assert soup.select_one("form.ledger-filter").has_attr("hidden")
    headings = [section.h2.text for section in soup.select("section section") if section.select(".claim")]
    assert len(headings) == len(set(headings))
    assert headings[:6] == sorted(headings)[-6:]  # the article's sections, and then the papers
    assert all(re.match(r"The article, section \d: |Papers: ", heading) for heading in headings)
    assert all(entry.find_parent("section").h2 for entry in entries)


def test_a_measure_in_a_text_leads_to_its_box(book):
    one = from_notebook(notebook(CHAPTER))[0]
    (book / "index.md").write_text(f"# Part\n\nIt was {{measured}}`{CHAPTER}#{one.anchor}`.\n")
    built, page = build(book)
    assert built, page
    (link,) = BeautifulSoup(page, "html.parser").select("p a[href*='#claim-']")
    assert link["href"] == f"notebooks/{CHAPTER}.html#{one.anchor}"
    assert one.measured.startswith(link.text)


@pytest.mark.parametrize("words", ["claim", "no such measure"])
def test_a_measure_in_a_text_that_is_not_one_ends_the_build(book, words):
    (book / "index.md").write_text(f"# Part\n\nIt was {{measured}}`{CHAPTER}#{words}`.\n")
    built, said = build(book)
    assert not built
    assert f"measured must name one measure of {CHAPTER}, got '{words}'" in said


@cache
def anchors(chapter):
    return [one.anchor for one in from_notebook(notebook(chapter))]


@pytest.mark.parametrize(("chapter", "words"), QUOTED)
def test_what_pages_quote_is_one_measure_of_its_chapter(chapter, words):
    """As a build asks, which takes minutes to come to the last page."""
    assert words in anchors(chapter) or sum(words in anchor for anchor in anchors(chapter)) == 1


def test_a_recorded_run_stands_beside_the_page(book):
    one = from_notebook(notebook(CHAPTER))[0].to_json()
    one["values"] = [value / 2 for value in one["values"]]
    run = {
        "chapter": CHAPTER,
        "date": "2026-01-02",
        "parameters": {"device": "cuda", "scale": "full"},
        "seconds": 1234.5,
        "device": "Abacus 3000",
        "device_peak_bytes": 3 * 2**20,
        "host_peak_bytes": 1,
        "threads": 1,
        "versions": {"torch": "9.9", "python": "3.99"},
        "evidence": [one],
    }
    path = book / "results" / "abacus-3000" / "full" / f"{run['chapter']}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(run))
    built, page = build(book)
    assert built, page
    words = Text(page).words
    assert words.count("Abacus 3000, full scale, 2026-01-02") == 2  # in the ledger and in the run times
    assert {"1,234", "3\N{NO-BREAK SPACE}MiB"} <= set(words)


def test_a_recorded_run_with_the_same_figures_is_not_repeated(book):
    shutil.copytree(ROOT / "results", book / "results")
    for path in [path for name in SMALL for path in book.glob(f"results/*/*/{name}.json")]:
        run = json.loads(path.read_text())
        run["evidence"] = [one.to_json() for one in from_notebook(notebook(run["chapter"]))]
        path.write_text(json.dumps(run))
    built, page = build(book)
    assert built, page
    evidence = sum(len(from_notebook(notebook(name))) for name in SMALL)
    assert page.count('<th scope="row">') == page.count("in the book, one CPU thread") == evidence


def seen(book: Path, broken: list, stale: bool = False, whole: bool = True) -> None:
    """Record that two mutants broke this evidence, and of the whole list that it broke nothing."""
    source = next(iter(mutants.recorded(CHAPTER).values()))["source"] if not stale else "0" * 64
    run = {"source": source, "evidence": [one.to_json() for one in broken]}
    path = mutants.target(CHAPTER, book)
    path.parent.mkdir(parents=True)
    harmless = dict.fromkeys(mutants.recorded(CHAPTER) if whole else (), run | {"evidence": []})
    path.write_text(json.dumps({"gate held": run, "gate <swapped>": run} | harmless))


@pytest.mark.parametrize("stale", [False, True])
def test_what_was_seen_to_fail_stands_in_the_ledger_and_in_the_box(book, stale):
    first, *others = from_notebook(notebook(CHAPTER))
    seen(book, [replace(first, values=(0.31,)), *others], stale)
    (book / "conf.py").write_text(CONF.replace('["notebooks"]', f'["notebooks/{OTHER}.ipynb"]'))
    path = notebook(CHAPTER, book)
    committed = path.read_bytes()
    built, page = build(book)
    assert built, page
    assert path.read_bytes() == committed
    words = f"gate held{' (in an earlier version of the chapter)' if stale else ''}: 0.31; and 1 more"
    assert words in Text(page).words
    assert f"Seen to fail: {words.removesuffix('; and 1 more')} (must be {first.required})." in Text(page).words
    assert Text(page).words.count("no mutant breaks it") == len(others)
    assert Text(page).words.count("No mutant breaks it.") == len({one.claim for one in others} - {first.claim})
    unbroken = {one.claim for one in from_notebook(notebook(OTHER))} - {one.claim for one in (first, *others)}
    assert Text(page).words.count("Not yet seen to fail.") == len(unbroken) > 0
    assert "For 1 of the" in re.sub(r"\s+", " ", " ".join(Text(page).words))
    box = Text((book / "out" / "notebooks" / f"{CHAPTER}.html").read_text()).words
    assert box.count("seen to fail") == box.count(words) == 1


def test_mutants_that_are_run_after_a_build_reach_the_box_in_the_next(book):
    first, *others = from_notebook(notebook(CHAPTER))
    (book / "conf.py").write_text(CONF.replace('["notebooks"]', f'["notebooks/{OTHER}.ipynb"]'))
    page = book / "out" / "notebooks" / f"{CHAPTER}.html"
    for times in (0, 1):
        if times:
            seen(book, [replace(first, values=(0.31,)), *others], whole=False)
        built, output = build(book)
        assert built, output
        assert "no mutant breaks it" not in output.lower()  # as long as others wait to be run
        assert Text(page.read_text()).words.count("seen to fail") == times


def break_bound(one):
    one["values"] = [1e9]
    one["bound"] = {"kind": "below", "low": "-inf", "high": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (break_bound, "must be below 1"),
        (lambda one: one.update(claim="C77"), "got 'C77'"),
        (lambda one: one.update(claim="A28"), "as lstm_lib/book/claims.toml has it for A28"),
    ],
)
def test_bad_evidence_ends_the_build(book, change, said):
    edit(book, CHAPTER, change)
    built, output = build(book)
    assert not built
    assert said in output


def test_missing_evidence_ends_the_build(book):
    path = notebook(CHAPTER, book)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cells": []}))
    built, output = build(book)
    assert not built
    assert f"{CHAPTER} gives no evidence for" in output


def test_a_surprise_shows_a_claim_with_its_figure_and_what_broke_it(book):
    """On a page that is no chapter: the verdict, the drawing with its description, a mutant in words."""
    shutil.copy(ROOT / "book" / "_ext" / "surprises.py", book / "book" / "_ext")
    shutil.copytree(ROOT / "results", book / "results")
    shutil.copytree(ROOT / "lstm_lib" / "book" / "mutants", book / "lstm_lib" / "book" / "mutants")
    (book / "conf.py").write_text(CONF.replace('"ledger"', '"ledger", "surprises"'))
    surprise = (
        "```{{surprise}} A01\n:chapter: gates/vanishing_gradients\n:figure: {}\n"
        ":measure: a01-lstm-gradient-at-lag-50\nWhat it says.\n```\n"
    )
    (book / "index.md").write_text("# Welcome\n\n" + surprise.format("fig-vanishing-lags"))
    (book / "article.md").unlink()
    built, page = build(book)
    assert built, page
    soup = BeautifulSoup(page, "html.parser")
    assert soup.select_one(".claim-false.claim-verdict").text == "false as stated"
    drawing = soup.select_one("figure img")
    assert drawing["src"].startswith("data:image/svg+xml;base64,")
    assert drawing["alt"].startswith("Line chart")
    assert "only an open forget gate changes that." in soup.select_one("figcaption").text
    assert "Seen to fail: the LSTM made with forget bias 1: 0.000244" in " ".join(soup.text.split())
    (book / "index.md").write_text("# Welcome\n\n" + surprise.format("fig-of-another-chapter"))
    built, said = build(book)
    assert not built
    assert "index: surprise A01: figure must be one of gates/vanishing_gradients, got fig-of-another" in said


ALL = {"chapter": "gates/vanishing_gradients", "figure": "fig-a", "measure": "a01-lstm-gradient-at-lag-50"}


@pytest.mark.parametrize(
    ("claim", "options", "caption", "said"),
    [
        ("A99", ALL, "**Found.**", "no such claim"),
        ("A01", {"figure": "fig-a"}, "**Found.**", "it needs chapter, measure"),
        ("A01", ALL | {"chapter": "gates/none"}, "**Found.**", "chapter must have a notebook, got gates/none"),
        ("A01", ALL | {"measure": "none"}, "**Found.**", "measure must be in one broken anchor"),
        ("A01", ALL, "Found.", "fig-a must be an SVG with alt and a caption that begins in bold"),
        ("A01", ALL, "**Found.**", "fig-a must be an SVG with alt and a caption that begins in bold"),
    ],
)
def test_a_surprise_that_lacks_something_names_its_page_and_its_claim(monkeypatch, claim, options, caption, said):
    about = {"mystnb": {"figure": {"name": "fig-a", "caption": caption}, "image": {"alt": "A line."}}}
    drawn = [nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"})] if caption == "Found." else []
    cell = nbformat.v4.new_code_cell(metadata=about, outputs=drawn)
    made = nbformat.v4.new_notebook(cells=[cell])
    # nbformat itself stays: others remember what they have read with it.
    monkeypatch.setattr(surprises, "nbformat", SimpleNamespace(read=lambda *_: made))
    monkeypatch.setattr(surprises.Surprise, "env", SimpleNamespace(docname="book/intro"))
    one = object.__new__(surprises.Surprise)
    one.arguments, one.options, one.content = [claim], options, []
    with pytest.raises(ExtensionError, match=f"book/intro: surprise {claim}: {said}"):
        one.text()

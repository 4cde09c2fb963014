"""Each part has its ten questions, each from a claim of that part, and a page shows and marks them."""

import re
import shutil
from pathlib import Path

import building
import pytest
from bs4 import BeautifulSoup

from chapters import ROOT, chapters
from lstm_lib.book.claims import from_notebook, registry

PARTS = sorted({chapter.partition("/")[0] for chapter in chapters()})
ASKED = re.compile(r"^````\{question\} (\w+) ?(\S*)\n(.*?)^````$", re.MULTILINE | re.DOTALL)

CONF = """
import os, sys; sys.path += map(os.path.abspath, ("book/_ext", "tools"))
extensions = ["myst_nb", "questions"]
nb_execution_mode = "off"
myst_enable_extensions = ["deflist"]
html_static_path = ["_static"]
exclude_patterns = ["notebooks", "tools"]
"""

GOOD = """# Questions

```{question} A04
Which *gates*?

One
: Because it is.

[Two](https://example.org)
: Because it is not.

Three
: Nor is this.
```
"""


def questions(part: str) -> list[tuple[str, str, str]]:
    """Claim, chapter and content of each question of a part."""
    return ASKED.findall((ROOT / "book" / "questions" / f"{part}.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_ten_questions_from_its_own_claims(part):
    asked = questions(part)
    assert len(asked) == 10
    for claim, chapter, _ in asked:
        [tested] = [chapter] if chapter else registry()[claim].chapters
        assert tested.startswith(f"{part}/")
        assert tested in registry()[claim].chapters
    assert len({(claim, chapter) for claim, chapter, _ in asked}) == 10


@pytest.mark.parametrize("part", PARTS)
def test_each_question_has_three_answers_and_each_its_reply(part):
    for claim, _, content in questions(part):
        answers = re.findall(r"^(?![: ])(.+)\n: \S", content, re.MULTILINE)
        assert len(answers) == len(set(answers)) == 3, claim


@pytest.fixture
def book(tmp_path) -> Path:
    """One chapter, and a page of questions."""
    for folder in ("book/_ext", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "notebooks" / "gates").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "gates" / "the_cell.ipynb", tmp_path / "notebooks" / "gates")
    shutil.copytree(
        ROOT / "book" / "_static", tmp_path / "_static", ignore=shutil.ignore_patterns("vendor", "lab")
    )
    (tmp_path / "conf.py").write_text(CONF)
    return tmp_path


def build(book: Path, text: str) -> tuple[BeautifulSoup | None, str]:
    """The page, and what Sphinx complained about."""
    (book / "index.md").write_text(text)
    _, said = building.build(book, "-E")
    page = book / "out" / "index.html"
    return BeautifulSoup(page.read_text(), "html.parser") if page.exists() else None, said


def test_a_page_mixes_the_answers_and_leads_to_the_experiment(book):
    page, said = build(book, GOOD)
    assert not said
    answers = page.select(".question details")
    assert sorted(answer.summary.text for answer in answers) == ["One", "Three", "Two"]
    for answer in answers:
        kind = "right" if answer.summary.text == "One" else "wrong"
        assert answer["class"] == [kind]
        assert answer.strong.text == f"{kind.capitalize()}."
        anchor = next(
            one.anchor for one in from_notebook(ROOT / "notebooks/gates/the_cell.ipynb") if one.claim == "A04"
        )
        assert answer.select("a")[-1]["href"] == f"notebooks/gates/the_cell.html#{anchor}"
    assert page.select('script[src*="questions.js"]')


def test_the_right_answer_stands_now_here_now_there(book):
    page, _ = build(book, "\n".join(GOOD.replace("One", f"One {k}") for k in range(9)))
    places = {
        [answer["class"] for answer in question("details")].index(["right"])
        for question in page(class_="question")
    }
    assert len(places) > 1


def test_a_question_that_is_none_is_refused(book):
    refused = [
        ("A04", "A99", "must name a claim and one of its chapters"),
        ("A04", "A02", "must name a claim and one of its chapters, A02 has"),
        ("A04", "A04 gates/counting", "must name a claim and one of its chapters"),
        ("Three\n: Nor is this.\n", "", "at least three answers"),
        ("Which *gates*?\n", "", "must hold the question"),
    ]
    for k, (old, new, _) in enumerate(refused):
        (book / f"refused-{k}.md").write_text(GOOD.replace(old, new))
    said = build(book, GOOD)[1]
    for k, (*_, words) in enumerate(refused):
        assert re.search(rf"refused-{k}\.md:3: ERROR: question .*{words}", said), said


def test_a_page_without_questions_has_no_script(book):
    page, _ = build(book, "# Nothing\n\nto ask\n")
    assert not page.select('script[src*="questions.js"]')

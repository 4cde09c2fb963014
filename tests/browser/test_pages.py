"""The built book in a browser, each page by itself. What is looked for stands in `tools/look.py`."""

import os

import pytest

import look

SOME = ["book/intro.html", "book/laboratory.html", "notebooks/gates/recurrence.html"]
WHOLE = os.environ.get("LOOK") == "all"
NAMES = look.pages(look.HTML) if WHOLE else SOME
VIEWS = look.VIEWS if WHOLE else look.KEYS


@pytest.fixture(scope="module")
def folder():
    if not (look.HTML / "index.html").exists():
        pytest.skip("needs the built book: make book")
    return look.HTML


@pytest.mark.parametrize("name", NAMES)
def test_page(told, name):
    if problems := told(lambda one: one.page(name, VIEWS)):
        pytest.fail(problems, pytrace=False)


def test_what_readers_use(told, folder):
    if problems := told(lambda one: one.use(look.pages(folder))):
        pytest.fail(problems, pytrace=False)

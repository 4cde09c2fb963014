"""A browser that looks at pages with `tools/look.py`: at all of the book, in all views, where LOOK=all.

`make test-browser` sets that. Without it, as in `make test`, pages and views are few, and the tests are left out
where there is no browser or no book.
"""

import asyncio
import os

import pytest

import look


def pytest_configure():
    """Whoever asks for all of it is told what is missing."""
    if os.environ.get("LOOK") == "all":
        try:
            look.required("make test-browser", look.HTML)
            look.tools("make test-browser")
        except SystemExit as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="module")
def browser(folder):
    """What runs a coroutine, and what makes a Look at the pages in the module's folder, all with one browser."""
    pytest.importorskip("playwright", reason="needs pip install -r requirements-look.txt")
    pytest.importorskip("axe_playwright_python", reason="needs pip install -r requirements-look.txt")
    if (path := look.browser()) is None:
        pytest.skip("needs Chromium or Chrome, or CHROMIUM set to the path of one")
    with asyncio.Runner() as runner:
        context = look.looking(folder, path)
        new = runner.run(context.__aenter__())
        yield runner.run, new
        runner.run(context.__aexit__(None, None, None))


@pytest.fixture
def told(browser):
    """What a Look, which a coroutine makes use of, has to tell."""
    run, new = browser

    def problems(use):
        one = new()
        run(use(one))
        return one.told()

    return problems

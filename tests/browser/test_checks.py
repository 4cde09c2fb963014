"""Every check of `tools/look.py` is seen to fail: on a small page that has this one fault."""

import os
import subprocess
import sys

import pytest

import look
from chapters import ROOT

PAGE = """<!doctype html><html lang="en"><head>
<meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">
<style>
@media (prefers-color-scheme: dark) {{ html {{ color: white; background: black }} a {{ color: cyan }} }}
</style>
</head><body><main><article class="bd-article"><h1>A page</h1>{}</article></main></body></html>"""
DOT = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/%3E"
MATH = "<span class='math'><mjx-container>x</mjx-container></span>"
WIDE = "<table><tr><td><div style='width: 600px'>Wide</div></td></tr></table>"
BOX = "<div style='width: 300px; overflow-x: {}' tabindex='0'>{}</div>"
WHOLE = f"""<p id="there">A <a href="#there">link</a>, and <a href="a%20wide%20table.html#end">another</a>.</p>
<p><a href="https://example.org">Elsewhere</a></p><img src="{DOT}" alt="A dot">{MATH}{BOX.format("auto", WIDE)}
<details><summary>More</summary><button>A button</button></details><label>A word <input></label>
<script src="_static/shared.js"></script>"""
ELSEWHERE = "<ul id='search-results'><li><a href='whole.html'>Another page</a></li></ul>"
USED = """<p>A <a href="whole.html#term-a">term</a>.</p><button class="theme-switch-button">Theme</button>
<div class="solution dropdown"><button>Solution</button><p>Open.</p></div>
<script>document.documentElement.dataset.theme = "light"</script>"""
PAGES = {
    "whole": WHOLE,
    "a wide table": BOX.format("auto", WIDE) + '<p id="end">The end</p>',
    "search": ELSEWHERE,
    "used": USED,
}

# A fault: the page's name, what is in it, and what is told.
FAULTS = {
    "another host": (
        "<img src='https://example.org/a.png' alt='A dot'>",
        "asks the network for https://example.org/a.png",
    ),
    "warning": ("<script>console.warn('odd')</script>", "console warning: odd"),
    "error": ("<script>throw Error('odd')</script>", "uncaught: odd"),
    "from disk": (
        "<script>if (location.protocol === 'file:') console.error('odd')</script>",
        "    from disk.html (light, from disk)",
    ),
    "wide": ("<div style='width: 2000px'>Wide</div>", "px wider than the window"),
    "wide on a phone": ("<div style='width: 600px'>Wide</div>", "    wide on a phone.html (dark, 390 px)"),
    "no equation": ("<span class='math'>x</span>", "1 equations not rendered, 0 with an error"),
    "wrong equation": (MATH + "<mjx-merror>x</mjx-merror>", "0 equations not rendered, 1 with an error"),
    "cut equation": (
        "<div style='height: 9px; overflow: hidden'><mjx-container style='display: block'>x</mjx-container></div>",
        "is cut off: <mjx-container",
    ),
    "cut table": (BOX.format("hidden", WIDE), "is cut off: <table>"),
    "cut at the left": ("<pre style='margin-left: -60px'>code</pre>", "is cut off: <pre"),
    "cut in a fold": (
        f"<details><summary>More</summary>{BOX.format('clip', WIDE * 2)}</details>",
        "is cut off: <table>",
    ),
    "idle": (
        "<span class='math' style='display: inline-flex; position: relative; overflow: auto'><mjx-container>"
        "<mjx-math>x</mjx-math><i style='position: absolute; left: 0; width: 99px'>y</i></mjx-container></span>",
        "scrolls for nothing: <span",
    ),
    "no image": ("<img src='gone.svg' alt='A dot'>", "does not load: http"),
    "no image further down": (
        "<p style='height: 9000px'></p><img loading='lazy' src='gone.svg' alt='A dot'>",
        "does not load: http",
    ),
    "no words": (f"<img src='{DOT}' alt=''>" * 2, "has no alternative text: data:image"),
    "no page": ("<a href='gone.html'>A page</a>", "link leads nowhere: gone.html"),
    "no place": ("<a href='#gone'>A place</a>", "link leads nowhere: no%20place.html#gone"),
    "no place there": ("<a href='whole.html#gone'>A place</a>", "link leads nowhere: whole.html#gone"),
    "pale": ("<p style='color: #aaa'>Text</p>", "axe color-contrast"),
    "pale at night": ("<p style='color: #333'>Text</p>", "    pale at night.html (dark, 390 px)"),
    "trap": (
        "<button>One</button><button onkeydown='event.preventDefault()'>Two</button>",
        "keeps the keyboard: <button onkeydown",
    ),
    "cycle": (
        "<button id='a'>One</button><button onblur='a.focus()'>Two</button><button>Three</button>",
        "is not reached by the keyboard: <button>Three",
    ),
    "transparent": ("<a href='#' style='opacity: 0'>A link</a>", "has the keyboard and cannot be seen: <a"),
    "outside": (
        "<a href='#' style='position: fixed; left: -200px'>A link</a>",
        "has the keyboard and cannot be seen: <a",
    ),
    "covered": (
        "<button>One</button><div style='position: fixed; inset: 0; background: white'></div>",
        "has the keyboard and cannot be seen: <button>One",
    ),
    "unmarked": (
        "<button style='outline: none'>One</button>",
        "looks the same with and without the keyboard: <button",
    ),
    "heavy": (f"<!-- {'x' * 1_600_000} -->", "weighs 1.6 MB without what pages share"),
    "heavy tips": ("<script src='_static/tippy/tips.js'></script>", "weighs 2.0 MB without what pages share"),
    "slow": (
        "<script>document.body.hidden = true; setTimeout(() => { document.body.hidden = false; }, 1200)</script>",
        "shows nothing for 1.",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, text in PAGES.items() | {name: text for name, (text, _) in FAULTS.items()}.items():
        (folder / f"{name}.html").write_text(PAGE.format(text), encoding="utf-8")
    (folder / "_static" / "tippy").mkdir(parents=True)
    for name in ("shared.js", "tippy/tips.js"):
        (folder / "_static" / name).write_text(f"// {'x' * 2_000_000}")
    return folder


def test_a_page_without_a_fault(told):
    assert told(lambda one: one.page("whole.html")) == ""


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told(told, name):
    views = look.KEYS[-1:] if "390 px" in FAULTS[name][1] else look.KEYS[:1]
    problems = told(lambda one: one.page(f"{name}.html", views))
    assert FAULTS[name][1] in problems
    assert f"    {name}.html" in problems, "the page is named"


def test_what_readers_use(told):
    problems = told(lambda one: one.use(["used.html"]))
    assert "'forget gate' leads to whole.html first\n    search" in problems
    assert "no tip over a glossary term (TimeoutError)\n    used.html" in problems
    assert "the theme switch gives ['light'] only\n    used.html" in problems
    assert "a solution is open before it is asked for\n    used.html" in problems
    assert "no page with .html#term-\n    book" in told(lambda one: one.use(["whole.html"]))


def test_one_quick_start_of_three_is_enough(told, monkeypatch):
    for times, problem in (([1500, 900], ""), ([1500, 1400, 1300, 900], "shows nothing for 1.3 s")):
        shown = iter(times)

        async def paint(self, page, shown=shown):
            return next(shown)

        monkeypatch.setattr(look.Look, "paint", paint)
        assert told(lambda one: one.page("whole.html", [("light", 768)])).partition("\n")[0] == problem


def test_without_a_browser_all_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/browser"],
        cwd=ROOT,
        env=os.environ | {"LOOK": "all", "CHROMIUM": "no-such-browser"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: make test-browser: no " in done.stderr

"""Look at the built book in a real browser, in both themes and at three widths: ``make look``.

Every page is opened over http from a server on this machine. It is a problem if a page asks anything of another
host, writes an error or a warning to the console, leaves an equation or an image out, is wider than the window, or
breaks a rule of WCAG 2.1 A or AA that axe-core knows. Then the things that readers use are used once: search,
glossary hover, theme switch, a folded solution; and the pages are opened once more straight from the disk.
Screenshots go to ``_build/look/``.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import shutil
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (1360, 820, 390)
THEMES = ("light", "dark")
AXE = (("light", 1360), ("dark", 1360), ("light", 390))  # contrast by theme, order and overflow by width
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")

# What a page looks like to a reader: all of it must be there, inside the window.
STATE = """() => ({
  wide: document.documentElement.scrollWidth - window.innerWidth,
  math: [...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length,
  merror: document.querySelectorAll('mjx-merror').length,
  images: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
})"""
READY = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await document.fonts.ready;
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not talk."""

    def log_message(self, *args) -> None:
        pass


def serve(folder: Path) -> str:
    """Serve a folder on a free port of this machine and return its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def tools():
    """Playwright's entry point, the text of axe-core, the browser's path; or leave with what is missing."""
    try:
        import axe_playwright_python
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        sys.exit(
            f"make look: {error.name} is not installed: {sys.executable} -m pip install -r requirements-look.txt"
        )
    named = os.environ.get("CHROMIUM")
    browser = shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(
            f"make look: no browser found (looked for {named or ', '.join(BROWSERS)}): install Chromium or "
            "Chrome, or set CHROMIUM to its path"
        )
    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    return sync_playwright, axe, browser


class Look:
    """A browser, the pages, and the problems found so far."""

    def __init__(self, browser, base: str, axe: str) -> None:
        self.browser, self.base, self.axe = browser, base, axe
        self.problems: dict[str, list[str]] = {}

    def note(self, where: str, what: str) -> None:
        """Keep a problem; the same one in many places is told once."""
        places = self.problems.setdefault(what, [])
        if where not in places:
            places.append(where)

    def open(self, name: str, theme: str = "light", width: int = WIDTHS[0], base: str | None = None):
        """A page, loaded, that reports what it asks of other hosts and what it writes to the console."""
        base = base or self.base
        where = f"{name} ({theme}{', from disk' if base.startswith('file:') else ''})"
        context = self.browser.new_context(color_scheme=theme, viewport={"width": width, "height": 900})
        page = context.new_page()

        def route(route):
            if route.request.url.startswith((base, "data:", "blob:")):
                route.continue_()
            else:
                self.note(where, f"asks the network for {route.request.url}")
                route.abort()

        def console(message):
            if message.type in ("error", "warning"):
                self.note(where, f"console {message.type}: {message.text[:160]} [{message.location['url'][-80:]}]")

        page.route("**/*", route)
        page.on("console", console)
        page.on("pageerror", lambda error: self.note(where, f"uncaught: {str(error)[:200]}"))
        page.goto(f"{base}/{name}", wait_until="load")
        page.evaluate(READY)
        return page

    def state(self, page, where: str) -> None:
        state = page.evaluate(STATE)
        if state["wide"] > 0:
            self.note(where, f"{state['wide']} px wider than the window")
        if state["math"] or state["merror"]:
            self.note(where, f"{state['math']} equations not rendered, {state['merror']} with an error")
        for image in state["images"]:
            self.note(where, f"image does not load: {image}")

    def rules(self, page, where: str) -> None:
        page.evaluate(self.axe)
        result = page.evaluate("tags => axe.run(document, {runOnly: tags, preload: false})", RULES)
        for violation in result["violations"]:
            node = violation["nodes"][0]
            self.note(
                where,
                f"axe {violation['id']}: {violation['help']}, first "
                f"{' '.join(map(str, node['target']))[:120]} {node['html'][:120]!r}",
            )

    def page(self, name: str, out: Path) -> None:
        """One page in both themes and at every width; listings of source code, all alike, without a picture."""
        for theme in THEMES:
            page = self.open(name, theme)
            for width in WIDTHS:
                where = f"{name} ({theme}, {width} px)"
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_timeout(150)
                self.state(page, where)
                if (theme, width) in AXE:
                    self.rules(page, where)
                stem = name.removesuffix(".html").replace("/", "-")
                if not name.startswith("_modules/"):
                    page.screenshot(path=out / f"{stem}-{theme}-{width}.png", full_page=True)
            page.context.close()

    def search(self, base: str | None = None) -> None:
        page = self.open("search.html?q=forget+gate", base=base)
        try:
            page.wait_for_selector("#search-results li a", timeout=10_000)
            page.wait_for_timeout(500)
        except Exception as error:
            self.note("search", f"no result for 'forget gate' ({type(error).__name__})")
        page.context.close()

    def hover(self, name: str) -> None:
        page = self.open(name)
        page.locator("article a[href*='.html#term-']").first.hover()
        try:
            page.wait_for_selector(".tippy-box", timeout=5_000)
        except Exception as error:
            self.note(name, f"no tip over a glossary term ({type(error).__name__})")
        page.context.close()

    def switch(self, name: str) -> None:
        page = self.open(name)
        seen = set()
        for _ in range(3):
            page.locator("button.theme-switch-button:visible").first.click()
            seen.add(page.evaluate("document.documentElement.dataset.theme"))
        if seen != set(THEMES):
            self.note(name, f"the theme switch gives {sorted(seen)} only")
        page.context.close()

    def fold(self, name: str) -> None:
        page = self.open(name)
        solution = page.locator(".solution.dropdown").first
        inside = solution.locator(":scope > :nth-child(2)")
        if inside.is_visible():
            self.note(name, "a solution is open before it is asked for")
        solution.locator("button, summary").first.click()
        page.wait_for_timeout(300)
        if not inside.is_visible():
            self.note(name, "a solution does not open")
        page.context.close()


def having(folder: Path, names: list[str], text: str) -> str | None:
    """The first page whose source holds a text."""
    return next((n for n in names if text in (folder / n).read_text(encoding="utf-8")), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="pages, such as book/intro.html (default: all)")
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "look")
    arguments = parser.parse_args()
    sync_playwright, axe, browser = tools()
    html = arguments.html.resolve()
    if not (html / "index.html").exists():
        sys.exit(f"make look: no book in {html}: run `make book` first")
    # index.html only forwards to the first page; _modules holds the source listings
    every = sorted(
        p.relative_to(html).as_posix()
        for p in html.rglob("*.html")
        if p.name != "index.html" and "_static" not in p.parts
    )
    names = arguments.pages or every
    arguments.out.mkdir(parents=True, exist_ok=True)

    flags = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses its sandbox to root
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=flags)
        look = Look(chromium, serve(html), axe)
        for name in names:
            print(name, flush=True)
            look.page(name, arguments.out)
        if not arguments.pages:
            look.search()
            look.search(base=html.as_uri())
            for check, text in (
                (look.hover, ".html#term-"),
                (look.switch, "theme-switch-button"),
                (look.fold, 'class="solution dropdown'),
            ):
                page = having(html, names, text)
                if page is None:
                    look.note("book", f"no page with {text}")
                else:
                    check(page)
            for name in names:
                page = look.open(name, base=html.as_uri())
                look.state(page, f"{name} (from disk)")
                page.context.close()
        chromium.close()
    for what, places in look.problems.items():
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        print(f"{what}\n    {', '.join(places[:3])}{more}")
    print(f"{len(names)} pages, {len(look.problems)} problems; screenshots in {arguments.out}")
    return 1 if look.problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Look at the built book in a real browser, in both themes and at three widths: ``make look``.

Every page is opened over http from a server on this machine. It is a problem if a page asks anything of another
host, writes an error or a warning to the console, leaves an equation or an image out, is wider than the window, or
breaks a rule of WCAG 2.1 A or AA that axe-core knows. Then the things that readers use are used once: search,
glossary hover, theme switch, a folded solution; and the pages are opened once more straight from the disk.
With ``--screenshots``, pictures go to ``_build/look/``. ``make look PAGE=book/intro`` looks at one page only.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import http.server
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import NoReturn

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


def browser() -> str | None:
    """The path of Chromium or Chrome: the one that CHROMIUM names, or the first that is found."""
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)


def flags() -> list[str]:
    """What a browser is started with: nothing that asks the network by itself."""
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        quiet.append("--no-sandbox")  # Chromium refuses its sandbox to root
    return quiet


def missing(command: str, module: str, requirements: str) -> NoReturn:
    """Leave with what has to be installed."""
    sys.exit(f"{command}: {module} is not installed: {sys.executable} -m pip install -r {requirements}")


def required(command: str, html: Path) -> str:
    """The path of a browser; or leave, if there is none, or no book."""
    if not (html / "index.html").exists():
        sys.exit(f"{command}: no book in {html}: run `make book` first")
    if (path := browser()) is None:
        sys.exit(
            f"{command}: no browser found (looked for {os.environ.get('CHROMIUM') or ', '.join(BROWSERS)}): "
            "install Chromium or Chrome, or set CHROMIUM to its path"
        )
    return path


def tools():
    """Playwright's entry point and the text of axe-core; or leave with what is missing."""
    try:
        import axe_playwright_python
        from playwright.async_api import async_playwright
    except ImportError as error:
        missing("make look", error.name, "requirements-look.txt")
    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    return async_playwright, axe


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

    async def open(self, name: str, theme: str = "light", width: int = WIDTHS[0], base: str | None = None):
        """A page, loaded, that reports what it asks of other hosts and what it writes to the console."""
        base = base or self.base
        where = f"{name} ({theme}{', from disk' if base.startswith('file:') else ''})"
        context = await self.browser.new_context(color_scheme=theme, viewport={"width": width, "height": 900})
        page = await context.new_page()

        async def route(route):
            if route.request.url.startswith((base, "data:", "blob:")):
                await route.continue_()
            else:
                self.note(where, f"asks the network for {route.request.url}")
                await route.abort()

        def console(message):
            if message.type in ("error", "warning"):
                self.note(where, f"console {message.type}: {message.text[:160]} [{message.location['url'][-80:]}]")

        await page.route("**/*", route)
        page.on("console", console)
        page.on("pageerror", lambda error: self.note(where, f"uncaught: {str(error)[:200]}"))
        await page.goto(f"{base}/{name}", wait_until="load")
        await page.evaluate(READY)
        return page

    async def state(self, page, where: str) -> None:
        state = await page.evaluate(STATE)
        if state["wide"] > 0:
            self.note(where, f"{state['wide']} px wider than the window")
        if state["math"] or state["merror"]:
            self.note(where, f"{state['math']} equations not rendered, {state['merror']} with an error")
        for image in state["images"]:
            self.note(where, f"image does not load: {image}")

    async def rules(self, page, where: str) -> None:
        await page.evaluate(self.axe)
        result = await page.evaluate("tags => axe.run(document, {runOnly: tags, preload: false})", RULES)
        for violation in result["violations"]:
            node = violation["nodes"][0]
            self.note(
                where,
                f"axe {violation['id']}: {violation['help']}, first "
                f"{' '.join(map(str, node['target']))[:120]} {node['html'][:120]!r}",
            )

    async def page(self, name: str, out: Path | None) -> None:
        """One page in both themes and at every width; with a picture of each in ``out``, if there is one."""
        for theme in THEMES:
            page = await self.open(name, theme)
            for width in WIDTHS:
                where = f"{name} ({theme}, {width} px)"
                await page.set_viewport_size({"width": width, "height": 900})
                await page.wait_for_timeout(150)
                await self.state(page, where)
                if (theme, width) in AXE:
                    await self.rules(page, where)
                if out:
                    stem = name.removesuffix(".html").replace("/", "-")
                    await page.screenshot(path=out / f"{stem}-{theme}-{width}.png", full_page=True)
            await page.context.close()

    async def search(self, base: str | None = None) -> None:
        page = await self.open("search.html?q=forget+gate", base=base)
        try:
            await page.wait_for_selector("#search-results li a", timeout=10_000)
            first = await page.locator("#search-results li a").first.get_attribute("href")
            if not first.endswith("gates/forget_gate.html"):
                self.note("search", f"'forget gate' leads to {first} first")
        except Exception as error:
            self.note("search", f"no result for 'forget gate' ({type(error).__name__})")
        await page.context.close()

    async def hover(self, name: str) -> None:
        page = await self.open(name)
        await page.locator("article a[href*='.html#term-']").first.hover()
        try:
            await page.wait_for_selector(".tippy-box", timeout=5_000)
        except Exception as error:
            self.note(name, f"no tip over a glossary term ({type(error).__name__})")
        await page.context.close()

    async def switch(self, name: str) -> None:
        page = await self.open(name)
        seen = set()
        for _ in range(3):
            await page.locator("button.theme-switch-button:visible").first.click()
            seen.add(await page.evaluate("document.documentElement.dataset.theme"))
        if seen != set(THEMES):
            self.note(name, f"the theme switch gives {sorted(seen)} only")
        await page.context.close()

    async def fold(self, name: str) -> None:
        page = await self.open(name)
        solution = page.locator(".solution.dropdown").first
        inside = solution.locator(":scope > :nth-child(2)")
        if await inside.is_visible():
            self.note(name, "a solution is open before it is asked for")
        await solution.locator("button, summary").first.click()
        await page.wait_for_timeout(300)
        if not await inside.is_visible():
            self.note(name, "a solution does not open")
        await page.context.close()


def having(folder: Path, names: list[str], text: str) -> str | None:
    """The first page whose source holds a text."""
    return next((n for n in names if text in (folder / n).read_text(encoding="utf-8")), None)


async def look_at(names: list[str], html: Path, path: str, out: Path | None, jobs: int, whole: bool) -> Look:
    """Look at pages, several at a time; at the whole book's search, tips and switches too."""
    async_playwright, axe = tools()
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=flags())
        look = Look(chromium, serve(html), axe)
        turn = asyncio.Semaphore(jobs)

        async def one(name: str) -> None:
            async with turn:
                print(name, flush=True)
                await look.page(name, out)
                page = await look.open(name, base=html.as_uri())
                await look.state(page, f"{name} (from disk)")
                await page.context.close()

        await asyncio.gather(*map(one, names))
        if whole:
            await look.search()
            await look.search(base=html.as_uri())
            for check, text in (
                (look.hover, ".html#term-"),
                (look.switch, "theme-switch-button"),
                (look.fold, 'class="solution dropdown'),
            ):
                page = having(html, names, text)
                if page is None:
                    look.note("book", f"no page with {text}")
                else:
                    await check(page)
        await chromium.close()
    return look


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="pages, such as book/intro (default: all)")
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "look")
    parser.add_argument("--screenshots", action="store_true", help="take a picture of each page, theme and width")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="pages at a time")
    arguments = parser.parse_args()
    html = arguments.html.resolve()
    path = required("make look", html)
    # index.html only forwards to the first page; _modules holds the source listings
    every = sorted(
        p.relative_to(html).as_posix()
        for p in html.rglob("*.html")
        if p.name != "index.html" and "_static" not in p.parts
    )
    names = [f"{name.removesuffix('.html')}.html" for name in arguments.pages] or every
    if unknown := sorted(set(names) - set(every)):
        sys.exit(f"make look: pages must be of the book, got {', '.join(unknown)}")
    out = arguments.out if arguments.screenshots else None
    if out:
        out.mkdir(parents=True, exist_ok=True)
    look = asyncio.run(look_at(names, html, path, out, arguments.jobs, whole=not arguments.pages))
    for what, places in look.problems.items():
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        print(f"{what}\n    {', '.join(places[:3])}{more}")
    print(f"{len(names)} pages, {len(look.problems)} problems" + (f"; screenshots in {out}" if out else ""))
    return 1 if look.problems else 0


if __name__ == "__main__":
    sys.exit(main())

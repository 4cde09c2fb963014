"""Look at the built book in a real browser, in both themes and at three widths: ``make look``.

Every page is opened over http from a server on this machine, and what it folds is unfolded. It is a problem if it
asks anything of another host, writes an error or a warning to the console, leaves out an equation or an image, is
wider than the window or cuts something off, scrolls a formula for nothing, links to a place in the book that is
not there, breaks a rule of WCAG 2.1 A or AA that axe-core knows, keeps the Tab key from anything or does not show
where it is, weighs too much, or shows nothing for a second. Then the things that readers use are used once:
search, glossary hover, theme switch, a folded solution; and the pages are opened once more straight from the disk.
With ``--screenshots``, pictures go to ``_build/look/``. ``make look PAGE=book/intro`` looks at one page only.

``make test-browser`` does the same with a test for each page (``tests/browser``).
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import html
import http.server
import os
import re
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
WIDTHS = (1360, 768, 390)
THEMES = ("light", "dark")
VIEWS = tuple((theme, width) for theme in THEMES for width in WIDTHS)
AXE = (("light", 1360), ("dark", 1360), ("dark", 390))  # contrast by theme, order and overflow by width
KEYS = (("light", 1360), ("dark", 390))  # with the menu beside the page, and behind a button
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
HEAVIEST, SLOWEST = 1_500_000, 1000  # bytes, without what pages share; milliseconds to the first text or picture
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")

READY = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  await document.fonts.ready;
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
}"""

OPEN = """() => {
  for (const box of document.querySelectorAll("details:not([open])")) box.open = true;
  for (const button of document.querySelectorAll(".toggle-hidden .toggle-button")) button.click();
}"""

# What a page looks like to a reader: all of it must be there, inside the window. It is cut off by a box that hides
# what is outside, and left of the window, where no scrolling leads.
STATE = """() => {
  const cut = e => {
    const inside = e.getBoundingClientRect(), scrolls = { X: false, Y: false };
    for (let box = e.parentElement; box && box !== document.body; box = box.parentElement) {
      const style = getComputedStyle(box), edge = box.getBoundingClientRect();
      for (const axis of "XY") {
        const [low, high] = axis === "X" ? ["left", "right"] : ["top", "bottom"];
        const out = inside[low] < edge[low] - 2 || inside[high] > edge[high] + 2;
        if (!scrolls[axis] && out && /hidden|clip/.test(style["overflow" + axis])) return true;
        scrolls[axis] ||= /auto|scroll/.test(style["overflow" + axis]);
      }
    }
    return !scrolls.X && inside.left < -2;
  };
  const shown = e => e.checkVisibility({ visibilityProperty: true });
  return {
    wide: document.documentElement.scrollWidth - window.innerWidth,
    math: [...document.querySelectorAll(".math")].filter(e => !e.querySelector("mjx-container")).length,
    merror: document.querySelectorAll("mjx-merror").length,
    cut: [...document.querySelectorAll(".bd-article :is(mjx-container, table, pre, img, svg)")]
      .filter(e => shown(e) && cut(e)).map(e => e.outerHTML),
    idle: [...document.querySelectorAll("span.math")].filter(e => e.scrollWidth > e.clientWidth
      && e.querySelector("mjx-math")?.getBoundingClientRect().width <= e.clientWidth).map(e => e.outerHTML),
    images: [...document.images].filter(i => !i.naturalWidth).map(i => i.src),
    wordless: [...document.querySelectorAll(".bd-article img")].filter(i => !i.alt.trim()).map(i => i.src),
  };
}"""

# Where a page's links lead on its own server; not those to a place in itself that is there.
LINKS = """() => [...new Set([...document.querySelectorAll("a[href]")]
  .filter(a => a.origin === location.origin)
  .filter(a => a.pathname !== location.pathname || !document.getElementById(decodeURIComponent(a.hash.slice(1))))
  .map(a => a.pathname.slice(1) + a.hash))]"""

# What a page alone makes a reader wait for. What lies in _static is the same for all pages, but for two folders.
WEIGHT = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .filter(e => !/_static\\/(?!tippy\\/|lab\\/)/.test(e.name)).reduce((sum, e) => sum + e.decodedBodySize, 0)"""
PAINT = """() => new Promise(tell => new PerformanceObserver(list => {
  for (const entry of list.getEntries()) if (entry.name === "first-contentful-paint") tell(entry.startTime);
}).observe({ type: "paint", buffered: true }) || setTimeout(tell, 3000, Infinity))"""

# The keyboard: all that it must reach; then, after each press of the Tab key, what is wrong with where it is.
REACH = """() => {
  document.head.insertAdjacentHTML("beforeend", "<style>* { transition: none !important }</style>");
  const able = e => e.tabIndex >= 0 && !e.disabled && e.checkVisibility({ visibilityProperty: true });
  const all = document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]");
  window.keys = { waiting: new Set([...all].filter(able)), able, reached: [], look: null };
  return keys.waiting.size;
}"""
STOP = """() => {
  const { waiting, reached } = keys, e = document.activeElement, before = reached.at(-1), wrong = [];
  const look = e => [e, e.parentElement].map(box => {
    const s = getComputedStyle(box);
    return [s.outline, s.boxShadow, s.border, s.backgroundColor, s.textDecoration, s.color];
  }).join();
  if (before && before !== e && look(before) === keys.look) {
    wrong.push(["looks the same with and without the keyboard", before.outerHTML]);
  }
  const round = e === document.body || (e === reached[0] && reached.length > 1);
  if (round || reached.includes(e)) {
    if (!round) wrong.push(["keeps the keyboard", e.outerHTML]);
    const left = [...waiting].filter(keys.able);
    wrong.push(...left.map(e => ["is not reached by the keyboard", e.outerHTML]));
    return { wrong, end: true };
  }
  const box = e.getClientRects()[0] ?? new DOMRect();
  const middle = (low, high, end) => (Math.max(low, 0) + Math.min(high, end)) / 2;
  const x = middle(box.left, box.right, innerWidth), y = middle(box.top, box.bottom, innerHeight);
  const shown = e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const at = shown && document.elementFromPoint(x, y);
  if (!at || !(e.contains(at) || at.contains(e))) wrong.push(["has the keyboard and cannot be seen", e.outerHTML]);
  reached.push(e);
  waiting.delete(e);
  keys.look = look(e);
  return { wrong, end: false };
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not talk."""

    def log_message(self, *args) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """A server to which a browser that is closed while it loads is no error."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(folder: Path) -> str:
    """Serve a folder on a free port of this machine and return its address."""
    server = Server(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
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


def tools(command: str = "make look"):
    """Playwright's entry point and the text of axe-core; or leave with what is missing."""
    try:
        import axe_playwright_python
        from playwright.async_api import async_playwright
    except ImportError as error:
        missing(command, error.name, "requirements-look.txt")
    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    return async_playwright, axe


@functools.cache
def anchors(page: Path) -> set[str]:
    """What a link can lead to in a page."""
    return {html.unescape(name) for name in re.findall(r'\sid="([^"]*)"', page.read_text(encoding="utf-8"))}


class Look:
    """A browser, the pages in a folder and at an address, and the problems found so far."""

    def __init__(self, browser, folder: Path, base: str, axe: str) -> None:
        self.browser, self.folder, self.base, self.axe = browser, folder, base, axe
        self.problems: dict[str, list[str]] = {}

    def note(self, where: str, what: str) -> None:
        """Keep a problem; the same one in many places is told once."""
        places = self.problems.setdefault(what, [])
        if where not in places:
            places.append(where)

    def several(self, where: str, what: str, elements: Sequence[str]) -> None:
        """Keep what is wrong with some elements, of which the first is shown."""
        if elements:
            more = f", and {len(elements) - 1} more" if len(elements) > 1 else ""
            self.note(where, f"{what}: {' '.join(elements[0].split())[:160]}{more}")

    def told(self) -> str:
        """The problems, each with the first places where it was found."""
        lines = []
        for what, where in self.problems.items():
            more = f" and {len(where) - 3} more" if len(where) > 3 else ""
            lines.append(f"{what}\n    {', '.join(where[:3])}{more}")
        return "\n".join(lines)

    async def open(self, name: str, theme: str = "light", width: int = WIDTHS[0], base: str | None = None):
        """A page, loaded, that reports what it asks of other hosts and what it writes to the console."""
        base = base or self.base
        where = f"{name} ({theme}{', from disk' if base.startswith('file:') else ''})"
        context = await self.browser.new_context(
            color_scheme=theme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
        )
        page = await context.new_page()

        async def refuse(route):
            self.note(where, f"asks the network for {route.request.url}")
            await route.abort()

        def console(message):
            if message.type in ("error", "warning"):
                self.note(where, f"console {message.type}: {message.text[:160]} [{message.location['url'][-80:]}]")

        await page.route(re.compile(rf"^(?!{re.escape(base)}|data:|blob:)"), refuse)
        page.on("console", console)
        page.on("pageerror", lambda error: self.note(where, f"uncaught: {str(error)[:200]}"))
        await page.goto(f"{base}/{name}", wait_until="load")
        await page.evaluate(READY)
        return page

    async def state(self, page, where: str) -> None:
        """All is there, and inside the window."""
        state = await page.evaluate(STATE)
        if state["wide"] > 0:
            self.note(where, f"{state['wide']} px wider than the window")
        if state["math"] or state["merror"]:
            self.note(where, f"{state['math']} equations not rendered, {state['merror']} with an error")
        self.several(where, "is cut off", state["cut"])
        self.several(where, "scrolls for nothing", state["idle"])  # a bar, with a mouse; on a phone nobody sees it
        self.several(where, "does not load", state["images"])
        self.several(where, "has no alternative text", state["wordless"])

    async def links(self, page, where: str) -> None:
        """Each link inside the book leads to a page, and to a place in it."""
        for link in await page.evaluate(LINKS):
            path, _, place = unquote(link).partition("#")
            target = self.folder / (path or "index.html")
            if not target.is_file() or (place and place not in anchors(target)):
                self.note(where, f"link leads nowhere: {link}")

    async def rules(self, page, where: str) -> None:
        """axe-core finds nothing."""
        await page.evaluate(self.axe)
        result = await page.evaluate(
            "tags => axe.run(document, {runOnly: tags, preload: false, resultTypes: ['violations']})", RULES
        )
        for violation in result["violations"]:
            node = violation["nodes"][0]
            self.note(
                where,
                f"axe {violation['id']}: {violation['help']}, first "
                f"{' '.join(map(str, node['target']))[:120]} {node['html'][:120]!r}",
            )

    async def keys(self, page, where: str) -> None:
        """The Tab key goes everywhere and on, and shows where it is."""
        wrong: dict[str, list[str]] = {}
        for _ in range(2 * await page.evaluate(REACH) + 100):  # a browser stops at more, such as boxes that scroll
            await page.keyboard.press("Tab")
            stop = await page.evaluate(STOP)
            for what, element in stop["wrong"]:
                wrong.setdefault(what, []).append(element)
            if stop["end"]:
                break
        for what, elements in wrong.items():
            self.several(where, what, elements)

    async def paint(self, page) -> float:
        """After how many milliseconds a page showed something."""
        return await page.evaluate(PAINT)

    async def cost(self, page, name: str) -> None:
        """A page is light, and shows something soon: in the best of three tries, as a machine has other work."""
        weight, best, tries = await page.evaluate(WEIGHT), await self.paint(page), 1
        while best >= SLOWEST and tries < 3:
            again = await self.open(name)
            best, tries = min(best, await self.paint(again)), tries + 1
            await again.context.close()
        if weight >= HEAVIEST:
            self.note(name, f"weighs {weight / 1e6:.1f} MB without what pages share")
        if best >= SLOWEST:
            self.note(name, f"shows nothing for {best / 1000:.1f} s")

    async def resize(self, page, width: int) -> None:
        await page.set_viewport_size({"width": width, "height": 900})
        await page.wait_for_timeout(150)

    async def page(self, name: str, views: Sequence[tuple[str, int]] = VIEWS, out: Path | None = None) -> None:
        """One page in each theme and width, and from the disk; with a picture of each where ``out`` is given."""
        themes = list(dict.fromkeys(theme for theme, _ in views))
        for theme in themes:
            page = await self.open(name, theme)
            if theme == themes[0]:
                await self.cost(page, name)
            widths = [width for of, width in views if of == theme]
            for width in widths if out else ():
                await self.resize(page, width)
                stem = name.removesuffix(".html").replace("/", "-")
                await page.screenshot(path=out / f"{stem}-{theme}-{width}.png", full_page=True)
            await page.evaluate(OPEN)
            await self.links(page, f"{name} ({theme})")
            for width in widths:
                where = f"{name} ({theme}, {width} px)"
                await self.resize(page, width)
                await self.state(page, where)
                if (theme, width) in AXE:
                    await self.rules(page, where)
            for width in widths:  # at last: where the keyboard has been, it leaves a tip open
                if (theme, width) in KEYS:
                    await self.resize(page, width)
                    await self.keys(page, f"{name} ({theme}, {width} px)")
            await page.context.close()
        page = await self.open(name, base=self.folder.as_uri())
        await self.state(page, f"{name} (from disk)")
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

    async def use(self, names: Sequence[str]) -> None:
        """The things that readers use, each once, on the first page that has it."""
        await self.search()
        await self.search(base=self.folder.as_uri())
        for check, text in (
            (self.hover, ".html#term-"),
            (self.switch, "theme-switch-button"),
            (self.fold, 'class="solution dropdown'),
        ):
            name = next((n for n in names if text in (self.folder / n).read_text(encoding="utf-8")), None)
            if name is None:
                self.note("book", f"no page with {text}")
            else:
                await check(name)


def pages(folder: Path) -> list[str]:
    """All pages in a folder; index.html only forwards to the first, and _modules holds the source listings."""
    paths = [path.relative_to(folder) for path in folder.rglob("*.html") if path.name != "index.html"]
    return sorted(path.as_posix() for path in paths if "_static" not in path.parts)


@asynccontextmanager
async def looking(folder: Path, path: str) -> AsyncIterator[Callable[[], Look]]:
    """What gives a new :class:`Look` at the pages in a folder, all with one browser."""
    async_playwright, axe = tools()
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=flags())
        yield functools.partial(Look, chromium, folder, serve(folder), axe)
        await chromium.close()


async def look_at(names: list[str], folder: Path, path: str, out: Path | None, jobs: int, whole: bool) -> Look:
    """Look at pages, several at a time; at the whole book's search, tips and switches too."""
    turn = asyncio.Semaphore(jobs)
    async with looking(folder, path) as new:
        look = new()

        async def one(name: str) -> None:
            async with turn:
                print(name, flush=True)
                await look.page(name, out=out)

        await asyncio.gather(*map(one, names))
        if whole:
            await look.use(names)
    return look


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="pages, such as book/intro (default: all)")
    parser.add_argument("--html", type=Path, default=HTML)
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "look")
    parser.add_argument("--screenshots", action="store_true", help="take a picture of each page, theme and width")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="pages at a time")
    arguments = parser.parse_args()
    folder = arguments.html.resolve()
    path = required("make look", folder)
    every = pages(folder)
    names = [f"{name.removesuffix('.html')}.html" for name in arguments.pages] or every
    if unknown := sorted(set(names) - set(every)):
        sys.exit(f"make look: pages must be of the book, got {', '.join(unknown)}")
    out = arguments.out if arguments.screenshots else None
    if out:
        out.mkdir(parents=True, exist_ok=True)
    look = asyncio.run(look_at(names, folder, path, out, arguments.jobs, whole=not arguments.pages))
    if look.problems:
        print(look.told())
    print(f"{len(names)} pages, {len(look.problems)} problems" + (f"; screenshots in {out}" if out else ""))
    return 1 if look.problems else 0


if __name__ == "__main__":
    sys.exit(main())

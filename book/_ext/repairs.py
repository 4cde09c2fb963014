"""Repairs to the theme and to extensions: what they get wrong, and no more than that."""

from __future__ import annotations

import re
from pathlib import Path

import pydata_sphinx_theme
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx_codeautolink.extension import SphinxCodeAutoLink
from sphinx_codeautolink.extension.cache import DataCache

ICON = re.compile(r'"?([a-z0-9-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?')
"""One of Font Awesome's icons in its script: name, and in a list its size, other names, code point and path."""


def no_thebe(app: Sphinx, config) -> None:
    """Disconnect sphinx-thebe, which Jupyter Book always loads.

    It declares a constant twice, an error in the console of every page, and this book has no live cells.
    """
    for listeners in app.events.listeners.values():
        listeners[:] = [
            listener for listener in listeners if getattr(listener.handler, "__module__", "") != "sphinx_thebe"
        ]
    app.registry.css_files[:] = [
        (name, options) for name, options in app.registry.css_files if name != "sphinx-thebe.css"
    ]


def as_drawn(app: Sphinx, doctree: nodes.document) -> None:
    """Show figures as drawn in both themes.

    The theme dims every image in the dark and puts a white ground under it, unless it has this class. All figures
    of the book are made for both grounds.
    """
    for image in doctree.findall(nodes.image):
        if "dark-light" not in image["classes"]:
            image["classes"].append("dark-light")


def unwrap_exercises(app: Sphinx, doctree: nodes.document) -> None:
    """Put the content of exercises and solutions straight into them.

    sphinx-exercise wraps it in a section without a title, with the same id every time: an id twice in a page is
    not HTML, and sphinx-codeautolink crashes on a section without a title.
    """
    for section in list(doctree.findall(nodes.section)):
        if {"exercise-content", "solution-content"} & set(section["ids"]):
            section.parent.replace(section, section.children)


def one_tip_file(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Remove the page's definitions of an earlier build: sphinx-tippy means to, but looks for another name."""
    folder, _, page = pagename.rpartition("/")
    for path in (app.outdir / "_static" / "tippy" / folder).glob(f"{page}.*.js"):
        path.unlink()


def remember_links(app: Sphinx) -> None:
    """Keep the names in code that is not read again.

    sphinx-codeautolink keeps them in a file, but takes from it only pages that were written as `.rst`. The pickled
    environment has them as well, of every page.
    """
    kept = getattr(app.env, "sphinx_codeautolink_transforms", {})
    DataCache.read = lambda cache: cache.transforms.update(kept)


def write_all(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write every page in every build: sphinx-tippy finds a definition only in a page that was written with it.

    sphinx-codeautolink puts its links only into what was out of date when the build began; so all pages were.
    """
    for listener in app.events.listeners["build-finished"]:
        if isinstance(owner := getattr(listener.handler, "__self__", None), SphinxCodeAutoLink):
            owner.outdated_docs = {str(Path(name)) for name in env.found_docs}
    return sorted(env.found_docs)


def roles(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Take two ARIA roles off the bibliography: one is deprecated, the other needs children that are not there."""
    for role in (' role="doc-biblioentry"', ' role="list"'):
        context["body"] = context.get("body", "").replace(role, "")


def fewer_icons(app: Sphinx, error: Exception | None) -> None:
    """Keep the icons that the pages use: the theme ships two thousand, nearly half of what a first visit loads."""
    if error or app.builder.name != "html":
        return
    theme = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme"
    everything = theme / "static" / "scripts" / "fontawesome.js"
    ours = app.outdir / "_static" / "scripts" / "fontawesome.js"
    users = [*app.outdir.rglob("*.html"), *(path for path in app.outdir.glob("_static/**/*.js") if path != ours)]
    used = {name for path in users for name in re.findall(r"\bfa-([a-z0-9-]+)", path.read_text(encoding="utf-8"))}

    def kept(icon: re.Match) -> str:
        names = {icon[1], *re.findall(r'"([^"]+)"', icon[2])}
        return icon[0] if names & used else ""

    ours.write_text(ICON.sub(kept, everything.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the repairs; three of them before the extension that they are about."""
    app.connect("config-inited", no_thebe)
    app.connect("builder-inited", remember_links, priority=400)
    app.connect("doctree-read", as_drawn)
    app.connect("doctree-read", unwrap_exercises, priority=400)
    app.connect("env-updated", write_all)
    app.connect("html-page-context", one_tip_file, priority=400)
    app.connect("html-page-context", roles)
    app.connect("build-finished", fewer_icons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

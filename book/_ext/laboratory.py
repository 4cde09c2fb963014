"""The explorables: a place in a page which a script fills, and their scripts and style on such pages alone.

Directive: `{laboratory}` with the name of one; its content stands there when no script runs. The scripts are in
`book/_static/lab/`: plain ones, not modules, which a browser refuses to load from a disk.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SCRIPTS = ["lstm", "widgets", "gates", "gradient", "train", "reader", "type"]
"""In the order in which they run: each needs those before it."""


class Laboratory(SphinxDirective):
    """A box for one explorable, and the words that stand in it without JavaScript."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["laboratory"] = ""  # this page needs the scripts
        return [
            nodes.raw("", f'<div class="lab" id="lab-{self.arguments[0]}"><noscript>', format="html"),
            *self.parse_content_to_nodes(),
            nodes.raw("", "</noscript></div>", format="html"),
        ]


def scripts(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Load scripts and style where there is a laboratory."""
    if "laboratory" in (context.get("meta") or {}):
        app.add_css_file("lab/lab.css")
        for name in SCRIPTS:
            app.add_js_file(f"lab/{name}.js", defer="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("laboratory", Laboratory)
    app.connect("html-page-context", scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

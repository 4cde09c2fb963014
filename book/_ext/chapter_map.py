"""The map of chapters: what needs what, drawn from the sentence "You need …" at the start of each.

Directive: `{chapter-map}`; its content is the caption.
"""

from __future__ import annotations

import posixpath
import re
import sys
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

from chapters import chapters, notebook

WIDTH, ROW, WIRES = 390, 27, 104
"""Of the drawing, of one line, and of the space for the wires: text that a phone shows without scrolling."""


def opening(chapter: str) -> tuple[str, list[str]]:
    """The title of a chapter, without what follows a colon, and the chapters that it needs."""
    text = nbformat.read(notebook(chapter), 4).cells[0].source
    title = re.search(r"^# ([^:\n]+)", text, re.MULTILINE)[1].replace("`", "")
    said = re.search(r"You need\s.*?\.(?=\s|$)", text, re.DOTALL)
    if not said:
        raise ValueError(f'the first cell of {chapter} must say what to have read, in a sentence "You need …"')
    named = re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", said[0])
    return title, [posixpath.join(posixpath.dirname(f"/notebooks/{chapter}"), name)[11:] for name in named]


class ChapterMap(SphinxDirective):
    """The chapters in the order of reading, and a wire from each to those that need it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        names = chapters()
        for name in names:
            self.env.note_dependency(str(notebook(name)))
        caption = nodes.caption("", "", *self.parse_inline("\n".join(self.content))[0])
        figure = nodes.figure("", nodes.raw("", self.drawing(names), format="html"), caption, ids=["fig-chapters"])
        self.state.document.note_explicit_target(figure)
        return [figure]

    def drawing(self, names: list[str]) -> str:
        """Inline SVG, in the colours of the page."""
        lines, wires, at, y = [], [], {}, 0
        for name in names:
            title, needed = opening(name)
            part = name.partition("/")[0]
            if not any(other.startswith(f"{part}/") for other in at):
                lines.append(f'<text class="part" x="{WIRES}" y="{y + 24}">{part.capitalize()}</text>')
                y += 34
            at[name], y = y + ROW / 2, y + ROW
            uri = self.env.app.builder.get_relative_uri(self.env.docname, f"notebooks/{name}")
            lines.append(
                f'<circle cx="{WIRES - 8}" cy="{at[name]}" r="3.2"/>'
                f'<a href="{uri}"><text x="{WIRES}" y="{at[name] + 4.5}">{escape(title)}</text></a>'
            )
            for other in needed:
                if other not in at:
                    raise ValueError(f"{name} must need earlier chapters only, got {other}")
                bow = min(WIRES - 14, 8 + (at[name] - at[other]) / 5)
                x = WIRES - 12
                wires.append(
                    f'<path data-from="{other}" data-to="{name}" d="M{x} {at[other]}'
                    f'C{x - bow} {at[other]} {x - bow} {at[name]} {x} {at[name]}"/>'
                )
        return (
            '<svg class="chapter-map" role="group" aria-label="Chapters in the order of reading, each a link. '
            f'Wires on the left join a chapter to the later ones that need it." viewBox="0 0 {WIDTH} {y + 6}">'
            f"{''.join(wires)}{''.join(lines)}</svg>"
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("chapter-map", ChapterMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""`{surprise}`: a claim with its verdict, a figure of its chapter and what broke it, on a page that is no chapter.

The figure is the one in the committed outputs, with its own description and finding: it changes when the chapter
does.
"""

from __future__ import annotations

import base64
import re

import nbformat
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from chapters import notebook
from ledger import VERDICTS, Directive, quoted, seen_to_fail
from lstm_lib.book import claims


def figure(chapter: str, name: str) -> tuple[str, str, str]:
    """A figure of a chapter by its name: an address that holds the drawing, its description, its finding."""
    for cell in nbformat.read(notebook(chapter), 4).cells:
        shown = cell.metadata.get("mystnb", {})
        if shown.get("figure", {}).get("name") == name:
            drawing = next(
                "".join(output.data["image/svg+xml"])
                for output in cell.outputs
                if "image/svg+xml" in output.get("data", {})
            )
            return (
                "data:image/svg+xml;base64," + base64.b64encode(drawing.encode()).decode(),
                shown["image"]["alt"],
                re.match(r"\*\*.+?\*\*", shown["figure"]["caption"])[0],
            )
    raise ExtensionError(f"surprise: figure must be one of {chapter}, got {name}")


class Surprise(Directive):
    """``{surprise} A01``, with the options ``chapter``, ``figure``, and in ``measure`` words of an anchor."""

    required_arguments = 1
    has_content = True
    option_spec = dict.fromkeys(("chapter", "figure", "measure"), directives.unchanged_required)

    def text(self) -> list[str]:
        claim, chapter = claims.registry()[self.arguments[0]], self.options["chapter"]
        kind = claims.style(claim.verdict)
        kills = [kill for anchor, kill in seen_to_fail(chapter).items() if self.options["measure"] in anchor]
        if len(kills) != 1:
            got = f"{self.options['measure']!r}, in {len(kills)} of them"
            raise ExtensionError(f"surprise: measure must be in one broken anchor of {chapter}, got {got}")
        address, alt, finding = figure(chapter, self.options["figure"])
        return [
            f"**“{claim.statement}”** "
            f'<span class="claim-{kind}"><span class="claim-verdict">{VERDICTS[kind]}</span></span>',
            "",
            f"```{{figure}} {address}",
            f":alt: {alt}",
            "",
            finding,
            "```",
            "",
            *self.content,
            f"*Seen to fail:* {quoted(kills[0])}.",
        ]


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("surprise", Surprise)
    return {"version": "1", "parallel_read_safe": True}

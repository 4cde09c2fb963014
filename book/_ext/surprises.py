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


class Surprise(Directive):
    """``{surprise} A01``, with the options ``chapter``, ``figure``, and in ``measure`` words of an anchor."""

    required_arguments = 1
    has_content = True
    option_spec = dict.fromkeys(("chapter", "figure", "measure"), directives.unchanged_required)

    def wrong(self, what: str) -> ExtensionError:
        """What ends the build, with the page and the claim where it stands."""
        return ExtensionError(f"{self.env.docname}: surprise {self.arguments[0]}: {what}")

    def figure(self, chapter: str, name: str) -> tuple[str, str, str]:
        """A figure of a chapter by its name: an address that holds the drawing, its description, its finding."""
        for cell in nbformat.read(notebook(chapter), 4).cells:
            shown = cell.metadata.get("mystnb", {})
            if shown.get("figure", {}).get("name") == name:
                data = [output.get("data", {}) for output in cell.outputs]
                drawings = ["".join(one["image/svg+xml"]) for one in data if "image/svg+xml" in one]
                finding = re.match(r"\*\*.+?\*\*", shown["figure"].get("caption", ""))
                if not (drawings and finding and "alt" in shown.get("image", {})):
                    raise self.wrong(f"{name} must be an SVG with alt and a caption that begins in bold")
                address = "data:image/svg+xml;base64," + base64.b64encode(drawings[0].encode()).decode()
                return address, shown["image"]["alt"], finding[0]
        raise self.wrong(f"figure must be one of {chapter}, got {name}")

    def text(self) -> list[str]:
        claim, chapter = claims.registry().get(self.arguments[0]), self.options.get("chapter")
        if claim is None:
            raise self.wrong("no such claim")
        if lacking := [name for name in self.option_spec if name not in self.options]:
            raise self.wrong(f"it needs {', '.join(lacking)}")
        if not notebook(chapter).exists():
            raise self.wrong(f"chapter must have a notebook, got {chapter}")
        kind = claims.style(claim.verdict)
        kills = [kill for anchor, kill in seen_to_fail(chapter).items() if self.options["measure"] in anchor]
        if len(kills) != 1:
            got = f"{self.options['measure']!r}, in {len(kills)} of them"
            raise self.wrong(f"measure must be in one broken anchor of {chapter}, got {got}")
        address, alt, finding = self.figure(chapter, self.options["figure"])
        return [
            f'**“{claim.statement}”** <span class="claim-verdict claim-{kind}">{VERDICTS[kind]}</span>',
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

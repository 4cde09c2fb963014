"""What no line breaks: a number and its per cent sign, and a number with an exponent.

A browser breaks a line at the space of `19 %` and behind the hyphen of `6.05e-12`.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx

PIECE = re.compile(
    r"""(?P<whole><(?:(pre|code|script|style|svg|textarea)\b|(span|div)\ class="math\b).*?</(?:\2|\3)>
    | <!--.*?-->)
    | (?P<tag><(?:"[^"]*"|[^">])*>)
    | (?P<text>[^<]+)""",
    re.DOTALL | re.VERBOSE,
)
"""Of a page: what stays as it is, such as code, which readers copy, and formulas; a tag; text between them."""
PER_CENT = re.compile(r"(?<=[\d)]) (?=%)")
EXPONENT = re.compile(r"(?<![\w.])[-\N{MINUS SIGN}]?\d[\d.]*e[-+]\d+\b")


def unbroken(body: str) -> str:
    """A page with spaces that do not break, and with numbers that do not."""
    pieces, before = [], ""  # the text before a tag: a number from a run stands in tags of its own
    for piece in PIECE.finditer(body):
        text = piece[0]
        if piece["text"]:
            text = PER_CENT.sub("\N{NO-BREAK SPACE}", before[-1:] + text)[len(before[-1:]) :]
            text = EXPONENT.sub(r'<span class="number">\g<0></span>', text)
        if not piece["tag"]:
            before = piece["text"] or ""
        pieces.append(text)
    return "".join(pieces)


def mend(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Mend the pages that were written, and not the listings of source, which are code."""
    if doctree is not None and "body" in context:
        context["body"] = unbroken(context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

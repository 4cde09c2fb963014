"""Questions that a page answers: each from a claim, each answer with a word on it and the way to the experiment.

Directive: `{question}` with a claim and, where several chapters test it, a chapter. Its content is the question
and a definition list, an answer with its reply in each item; the right one comes first, and the page mixes them.
Each is a `<details>`, so that all works by keyboard and without a script; `questions.js` keeps the score.
"""

from __future__ import annotations

from hashlib import sha256

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from chapters import notebook
from lstm_lib.book import claims


class Question(SphinxDirective):
    """A question, its answers in an order of their own, and where the claim is measured."""

    required_arguments = 1
    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["questions"] = ""  # this page needs the script
        *asked, answers = self.parse_content_to_nodes() or [nodes.paragraph()]
        if not asked or not isinstance(answers, nodes.definition_list) or len(answers) < 3:
            raise self.error("question must hold the question, then a definition list of at least three answers")
        right = answers[0]
        where = nodes.paragraph("", "", self.experiment())
        found = [nodes.raw("", '<div class="question" role="group">', format="html"), *asked]
        for item in sorted(answers, key=lambda item: sha256(item[0].astext().encode()).digest()):
            mark = "right" if item is right else "wrong"
            found += [
                nodes.raw("", f'<details class="{mark}"><summary>', format="html"),
                nodes.inline("", "", *item[0].children),
                nodes.raw("", f"</summary><strong>{mark.capitalize()}.</strong>", format="html"),
                *item[1].children,
                where.deepcopy(),
                nodes.raw("", "</details>", format="html"),
            ]
        return [*found, nodes.raw("", "</div>", format="html")]

    def experiment(self) -> nodes.reference:
        """A link to the claim's first box in its chapter."""
        claim, *chapter = self.arguments
        tested = claims.registry()[claim].chapters if claim in claims.registry() else ()
        if len(chapter or tested) != 1 or (chapter and chapter[0] not in tested):
            raise self.error(f"question must name a claim and one of its chapters, {claim} has {list(tested)}")
        [chapter] = chapter or tested
        self.env.note_dependency(str(notebook(chapter)))
        anchor = next(one.anchor for one in claims.from_notebook(notebook(chapter)) if one.claim == claim)
        uri = self.env.app.builder.get_relative_uri(self.env.docname, f"notebooks/{chapter}")
        return nodes.reference("", f"Where it is measured: {claim}", refuri=f"{uri}#{anchor}", internal=True)


def script(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Load the script where there are questions."""
    if "questions" in (context.get("meta") or {}):
        app.add_js_file("questions.js", defer="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("question", Question)
    app.connect("html-page-context", script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

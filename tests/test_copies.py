"""MyST as plain Markdown, cell by cell; test_book.py compares whole copies with the built pages."""

from __future__ import annotations

import pytest
from docutils import nodes
from nbformat import v4
from sphinx.errors import ExtensionError

from copies import Copy, markdown
from lstm_lib.book.notebook import GLUE

WORDS = {":eq:`sum`": "(3.1)", ":numref:`fig`": "[Fig. 3.2](https://book.example/page.html#fig)"}
NUMBERS = {("displaymath", "sum"): "3.1", ("figure", "fig"): "3.2", ("exercise", "half"): "3.3"}
GLUED = v4.new_output("display_data", {GLUE: "0.14567"}, metadata={"scrapbook": {"name": "off"}})


def copied(*sources: str) -> list[str]:
    """The text of the cells that stand for these; one that begins with ``>>>`` is code."""
    code = {"outputs": [GLUED], "metadata": {"mystnb": {"figure": {"name": "fig", "caption": "At {eq}`sum`."}}}}
    cells = [
        v4.new_code_cell(text, id=f"c{k}", **code) if text.startswith(">>>") else v4.new_markdown_cell(text)
        for k, text in enumerate(sources)
    ]
    copy = Copy(v4.new_notebook(cells=cells), WORDS, lambda *which: NUMBERS[which])
    return [cell.source for cell in copy.notebook.cells]


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("By {eq}`sum` and {numref}`fig`.", "By (3.1) and [Fig. 3.2](https://book.example/page.html#fig)."),
        ("Off by {glue:text}`off:.2f` %, {glue:text}`off`.", "Off by 0.15 %, 0.14567."),
        ("Write ``{eq}`sum` `` and `$$x$$ (sum)`.", "Write ``{eq}`sum` `` and `$$x$$ (sum)`."),
        ("(mistake)=\n\n### A mistake", "### A mistake"),
        ("A [word]{.mark}, `code`{#id} and $x_{.5}$.", "A [word], `code` and $x_{.5}$."),
        ("$$\na\n+ b\n$$ (sum)\n\nso", "$$ a + b \\tag{3.1} $$\n\nso"),
        ("$$\na\n$$\n\n(so)", "$$ a $$\n\n(so)"),
        ("```{math}\n:label: sum\na\n+ b\n```", "$$ a + b \\tag{3.1} $$"),
        ("```python\n# {eq}`sum`\n```", "```python\n# {eq}`sum`\n```"),
        (":::{admonition} Mind\n:class: warning\nOne.\n\nTwo.\n:::", "> **Mind**\n>\n> One.\n>\n> Two."),
        (
            "::::{exercise} Half\n:label: half\n\nDo.\n\n"
            ":::{admonition} Hint\n:class: dropdown\nSee {eq}`sum`.\n:::\n::::",
            "### Exercise 3.3 (Half)\n\nDo.\n\n<details>\n<summary>Hint</summary>\n\nSee (3.1).\n\n</details>",
        ),
    ],
)
def test_myst_becomes_markdown(myst, plain):
    assert copied(myst, ">>> code")[0] == plain


def test_a_figure_has_its_caption_below():
    assert copied(">>> plot") == [">>> plot", "**Fig. 3.2.** At (3.1)."]


def test_a_solution_may_hold_code_cells():
    start, end = ":::{solution-start} half\n:class: dropdown\n:::\n\n", "\n:::{solution-end}\n:::\n"
    caption = "**Fig. 3.2.** At (3.1)."

    def folded(summary: str, text: str) -> str:
        return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"

    assert copied("Before.\n\n" + start + "Think.", ">>> a", ">>> b", "Then." + end + "After.", ">>> c") == [
        "Before.\n\n" + folded("Solution", "Think."),
        "**Solution (code)**",
        *(">>> a", caption, ">>> b", caption),
        folded("Solution, continued", "Then.") + "\n\nAfter.",
        *(">>> c", caption),
    ]
    assert copied(start + "All." + end, start, ">>> a", end) == [
        folded("Solution", "All."),
        "**Solution (code)**",
        *(">>> a", caption),
    ]


@pytest.mark.parametrize(
    ("myst", "what"),
    [("{sub}`2`", "role {sub}`2`"), (":::{figure} a.png\nA.\n:::", "directive {figure}")],
)
def test_what_has_no_plain_form_stops_the_build(myst, what):
    with pytest.raises(ExtensionError, match=f"no plain form for the {what}, see copies.py"):
        copied(myst)


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ("", "`h_n` of *both* \\_\\*"),
        ("https://book.example/a/b.html", "[`h_n` of *both* \\_\\*](https://book.example/c.html#d)"),
    ],
)
def test_references_are_links_where_the_book_has_an_address(page, link):
    words = [nodes.literal("", "h_n"), nodes.Text(" of "), nodes.emphasis("", "both"), nodes.Text(" _*")]
    reference = nodes.reference("", "", *words, refuri="../c.html#d")
    assert markdown(reference, page) == link
    here = nodes.reference("", "see", refid="d")
    assert markdown(here, page) == (f"[see]({page}#d)" if page else "see")

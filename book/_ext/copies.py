"""A plain copy of each chapter: its notebook in the Markdown that GitHub, Colab and JupyterLab show.

A chapter is written in MyST, whose numbers, references and captions only this build knows. Each build writes the
copies to where a page's download button leads, over the sources that Sphinx puts there. Code, outputs and tags are
the chapter's own; references read as on the page, and lead to the published book where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import nbformat
from docutils import nodes
from myst_nb.core.variables import format_plain_text
from nbformat import NotebookNode
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinxcontrib.bibtex.transforms import BibliographyTransform

from lstm_lib.book.notebook import GLUE

MYST = re.compile(
    r"""
      ^(?P<fence>:{3,}|`{3,})\{(?P<directive>[\w-]+)\}\ *(?P<title>.*)\n
       (?P<options>(?::[\w-]+:.*\n)*)(?P<body>(?s:.*?))^(?P=fence)\ *$
    | ^\([\w:-]+\)=\n+                                              # a target
    | (?P<ticks>`+)(?s:.+?)(?<!`)(?P=ticks)(?!`)                    # code, which stays
    | \$\$(?P<equation>(?s:.+?))\$\$(?:\ *\((?P<label>[\w-]+)\))?
    | \{(?P<role>[\w:]+)\}`(?P<content>[^`]+)`
    | (?<=[\])`])\{[.\#][^}\n]*\}                                   # attributes
    """,
    re.MULTILINE | re.VERBOSE,
)
"""What Markdown does not know, and the code between, in which it means nothing."""

SOLUTION = re.compile(r"^:::\{solution-(start|end)\}.*\n(?::[\w-]+:.*\n)*:::\n?", re.MULTILINE)
"""The begin and the end of a solution; code cells may stand between."""

PLAIN_COPY = """

> This is a plain copy of a chapter of {book}, for any notebook viewer. Hints and solutions are folded; JupyterLab
> and Colab fold the code of a solution too, and JupyterLab shows figures once you trust the notebook or run it.\
"""


def folded(summary: str, text: str) -> str:
    """Text behind a summary."""
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


class Copy:
    """The plain copy of one chapter.

    Parameters
    ----------
    notebook : NotebookNode
        The chapter. It becomes the copy.
    words : dict of str to str
        The Markdown for each role with its content, such as ``:eq:`eq-the-cell-state```.
    number : callable
        Gives the number of a figure, an equation or an exercise, from its kind and its label.
    """

    def __init__(self, notebook: NotebookNode, words: dict[str, str], number: Callable[[str, str], str]) -> None:
        self.notebook, self.words, self.number = notebook, words, number
        self.glued = {
            output.metadata.scrapbook.name: output.data[GLUE]
            for cell in notebook.cells
            for output in cell.get("outputs", ())
            if GLUE in output.get("data", {})
        }
        self.in_solution = self.headed = False
        notebook.cells = [plain for cell in notebook.cells for plain in self.cells(cell)]

    def cells(self, cell: NotebookNode) -> list[NotebookNode]:
        """What stands for a cell: itself, for a figure the caption too, and nothing where no text is left."""
        if cell.cell_type != "code":
            cell.source = self.prose(cell.source)
            return [cell] if cell.source else []
        before, after = [], []
        if self.in_solution and not self.headed:
            before, self.headed = [self.text(f"{cell.id}-solution", "**Solution (code)**")], True
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            caption = f"**Fig. {self.number('figure', figure.name)}.** {self.plain(figure.caption)}"
            after = [self.text(f"{cell.id}-caption", caption)]
        if self.in_solution or "hide-input" in cell.metadata.get("tags", ()):
            hidden = ("source_hidden", "outputs_hidden") if self.in_solution else ("source_hidden",)
            cell.metadata |= {"cellView": "form", "jupyter": dict.fromkeys(hidden, True)}  # Colab, JupyterLab
        return [*before, cell, *after]

    def text(self, name: str, source: str) -> NotebookNode:
        """A new cell of text."""
        return nbformat.v4.new_markdown_cell(source, id=name)

    def prose(self, source: str) -> str:
        """The text of a cell, in which solutions may begin and end."""
        first, *rest = SOLUTION.split(source)
        parts = []
        for mark, text in zip(["", *rest[::2]], [first, *rest[1::2]], strict=True):
            if mark:
                self.in_solution, self.headed = mark == "start", False
            if text := self.plain(text).strip():
                summary = "Solution, continued" if self.headed else "Solution"
                parts.append(folded(summary, text) if self.in_solution else text)
        return "\n\n".join(parts)

    def plain(self, text: str) -> str:
        """MyST as Markdown."""
        return MYST.sub(self.replacement, text)

    def replacement(self, found: re.Match) -> str:
        if found["ticks"]:
            return found[0]
        if found["equation"]:
            return self.equation(found["equation"], found["label"])
        if found["role"]:
            return self.role(found["role"], " ".join(found["content"].split()))
        if found["directive"]:
            options = dict(re.findall(r":([\w-]+): *(.*)", found["options"]))
            return self.directive(found["directive"], found["title"], options, found["body"])
        return ""

    def role(self, name: str, content: str) -> str:
        if name == "glue:text":
            key, _, form = content.partition(":")
            return format_plain_text(self.glued[key], form or "s")
        try:
            return self.words[f":{name}:`{content}`"]
        except KeyError:
            raise ExtensionError(f"no plain form for the role {{{name}}}`{content}`, see copies.py") from None

    def equation(self, text: str, label: str | None) -> str:
        # In one line, because Markdown takes a line that begins with a plus for a list.
        tag = f" \\tag{{{self.number('displaymath', label)}}}" if label else ""
        return f"$$ {' '.join(text.split())}{tag} $$"

    def directive(self, name: str, title: str, options: dict[str, str], body: str) -> str:
        if name == "math":
            return self.equation(body, options.get("label"))
        body, title = self.plain(body).strip(), self.plain(title)
        if name == "exercise":
            return f"### Exercise {self.number('exercise', options['label'])} ({title})\n\n{body}"
        if name == "admonition" and "dropdown" in options.get("class", ""):
            return folded(title, body)
        if name == "admonition":
            return "\n".join(f"> {line}".rstrip() for line in f"**{title}**\n\n{body}".splitlines())
        raise ExtensionError(f"no plain form for the directive {{{name}}}, see copies.py")


def markdown(node: nodes.Node, page: str) -> str:
    """The words that a reference shows, as links where they lead to an address; ``page`` is that of their page."""
    if isinstance(node, nodes.Text):
        return re.sub(r"([\\`*_$])", r"\\\1", node.astext())
    words = "".join(markdown(child, page) for child in node.children)
    if isinstance(node, nodes.literal):
        return f"`{node.astext()}`"
    if isinstance(node, nodes.math):
        return f"${node.astext()}$"
    if isinstance(node, nodes.reference):
        address = urljoin(page, node.get("refuri") or f"#{node['refid']}")
        return f"[{words}]({address})" if address.startswith("http") else words
    mark = {nodes.emphasis: "*", nodes.strong: "**"}.get(type(node), "")
    return f"{mark}{words}{mark}"


class Mark(SphinxPostTransform):
    """Note at each reference of a chapter as what it was written, before Sphinx resolves it."""

    default_priority = 1
    builders = ("html",)

    def run(self) -> None:
        if is_chapter(self.app, self.env.docname):
            for xref in list(self.document.findall(pending_xref)):
                title = xref["reftype"] == "doc" and not xref["refexplicit"]
                xref.parent.replace(xref, nodes.inline("", "", xref, written=xref.rawsource, title=title))


def is_chapter(app: Sphinx, page: str) -> bool:
    """Whether a page is a notebook."""
    return page in app.env.found_docs and str(app.env.doc2path(page)).endswith(".ipynb")


class Copies:
    """All copies of a build, which become files at its end, when no page is copied any more."""

    def __init__(self) -> None:
        self.texts: dict[Path, str] = {}

    def make(self, app: Sphinx, doctree: nodes.document, page: str) -> None:
        """Make the copy of a chapter whose references are resolved."""
        if app.builder.name != "html" or not is_chapter(app, page):
            return
        base, words = app.config.html_baseurl, {}
        address = urljoin(base, app.builder.get_target_uri(page)) if base else ""
        for node in list(doctree.findall(lambda node: isinstance(node, nodes.inline) and "written" in node)):
            text = "".join(markdown(child, address) for child in node.children)
            mark = "*" if node["title"] and not base else ""  # a title that is no link would run into its sentence
            words[" ".join(node["written"].split())] = f"{mark}{text}{mark}"
            node.parent.replace(node, node.children)

        def number(kind: str, label: str) -> str:
            label = f"equation-{label}" if kind == "displaymath" else label
            return ".".join(map(str, app.env.toc_fignumbers[page][kind][label]))

        source = Path(app.env.doc2path(page))
        copy = Copy(nbformat.read(source, 4), words, number)
        title = app.config.html_title
        copy.notebook.cells[0].source += PLAIN_COPY.format(book=f"[{title}]({address})" if base else f"*{title}*")
        if entries := references(app, words):
            text = "## Works cited\n\n" + "\n".join(f"- {entry}" for entry in entries)
            copy.notebook.cells.append(copy.text("works-cited", text))
        self.texts[app.outdir / "_sources" / f"{page}.ipynb"] = nbformat.writes(copy.notebook) + "\n"

    def write(self, app: Sphinx, error: Exception | None) -> None:
        """Write the copies over what Sphinx has put there."""
        for path, text in {} if error else self.texts.items():
            path.write_text(text, encoding="utf-8")


def references(app: Sphinx, words: dict[str, str]) -> list[str]:
    """The entries of the references page that a chapter cites."""
    cited = {key.strip() for role in words if role.startswith(":cite:") for key in role.split("`")[1].split(",")}
    entries = [one.formatted_entry for one in app.env.get_domain("cite").citations if one.key in cited]
    return [" ".join(markdown(BibliographyTransform.backend.paragraph(entry), "").split()) for entry in entries]


def save_as_file(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Have the download button save: a browser opens JSON in a tab. The theme has no place for the attribute."""
    for group in context.get("header_buttons", ()):
        for button in group.get("buttons", ()):
            if button.get("label") == "download-source-button":
                button["url"] += '" download="' + button["url"].rpartition("/")[2]


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the copies once a chapter's references are resolved, and write them at the end."""
    copies = Copies()
    app.add_post_transform(Mark)
    app.connect("doctree-resolved", copies.make)
    app.connect("build-finished", copies.write)
    app.connect("html-page-context", save_as_file, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

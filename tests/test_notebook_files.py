"""The committed chapters themselves: nbval passes a notebook that was never executed, so the files are checked."""

import ast
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
import torch

import setup_cell
from chapters import ROOT, chapters, chosen, notebook
from lstm_lib.book import claims
from lstm_lib.book.notebook import GLUE
from nbval_numbers.figures import MIME as DESCRIPTION
from notebooks import canonical, settle

BOOK = chapters()
FIGURES = ("image/svg+xml", "image/png", "image/jpeg")
PATH = re.compile(r"(?:^|[\s\"'(=])(?:/(?:home|root|tmp|usr|opt|mnt|var|Users|private)/|[A-Z]:\\)")
TIMING = re.compile(r"\d ?(?:ms|µs|us|ns)\b|Wall time|CPU times|it/s|per loop")


@pytest.fixture(params=BOOK, scope="module")
def nb(request):
    """Each chapter in its turn, read once, which no test changes."""
    return nbformat.read(notebook(request.param), 4)


def code(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]


def tags(cell):
    return cell.metadata.get("tags", [])


def test_every_notebook_is_a_chapter():
    found = {
        path.relative_to(ROOT / "notebooks").with_suffix("").as_posix()
        for path in ROOT.glob("notebooks/*/*.ipynb")
    }
    assert found == set(BOOK)


@pytest.mark.parametrize("name", ["gates/the_cell", "notebooks/gates/the_cell.ipynb", "./gates/the_cell"])
def test_a_chapter_may_be_named_by_its_file(name):
    assert chosen([name]) == ["gates/the_cell"]


def test_the_suite_runs_every_cell_of_every_chapter():
    command = [sys.executable, "-m", "pytest", "-qq", "-p", "no:cacheprovider", "--collect-only", "notebooks"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    code_cells = {
        name: sum(c.cell_type == "code" for c in nbformat.read(notebook(name), 4).cells) for name in BOOK
    }
    assert {f"notebooks/{name}.ipynb: {n}" for name, n in code_cells.items()} <= set(found)


def test_executed_top_to_bottom_without_an_error(nb):
    assert [cell.execution_count for cell in code(nb)] == list(range(1, len(code(nb)) + 1))
    for cell in code(nb):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.text


@pytest.mark.parametrize("chapter", BOOK)
def test_in_canonical_form(chapter):
    text = notebook(chapter).read_text(encoding="utf-8")
    assert nbformat.writes(canonical(nbformat.reads(text, 4))) + "\n" == text, (
        "run `make notebooks`, or tools/notebooks.py --form"
    )


def test_outputs_hold_no_path_and_no_timing(nb):
    for cell in code(nb):
        text = json.dumps(
            [
                {**output.get("data", {}), "text": output.get("text")}
                for output in cell.outputs
                if not set(FIGURES) & set(output.get("data", {}))
            ],
            ensure_ascii=False,
        )
        assert not PATH.search(text), cell.source
        if "nbval-ignore-output" not in tags(cell):
            assert not TIMING.search(text), cell.source


def test_set_up_parameters_and_start_stand_first(nb):
    first, second, third = code(nb)[:3]
    assert "setup" in tags(first)
    assert first.source == setup_cell.of(nb, setup_cell.repository_url()), "run `make notebooks`"
    assert "parameters" in tags(second)
    values = {}
    exec(second.source, values)  # the repository's own cell, three assignments
    assert {name: values[name] for name in ("scale", "device", "seed")} == {
        "scale": "quick",
        "device": "auto",
        "seed": 0,
    }
    assert "run = notebook.start(" in third.source


@pytest.mark.parametrize("chapter", BOOK)
def test_a_chapter_starts_under_its_own_name(chapter):
    assert f'notebook.start("{chapter}"' in code(nbformat.read(notebook(chapter), 4))[2].source


def test_no_line_of_prose_is_taken_for_a_comment_or_a_list(nb):
    """A line that begins with % is a comment, one with "1. " begins a list, in the middle of a sentence too."""
    for cell in nb.cells:
        lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
        for before, line in zip(["", *lines], lines, strict=False):
            assert not line.startswith("%")
            assert not (before.strip() and re.match(r"1[.)] ", line)), line


def test_every_figure_has_alt_text_a_caption_and_a_name(nb):
    for cell in code(nb):
        if any(set(FIGURES) & set(output.get("data", {})) for output in cell.outputs):
            about = cell.metadata.get("mystnb", {})
            assert len(about.get("image", {}).get("alt", "")) > 20, cell.source
            assert len(about.get("figure", {}).get("caption", "")) > 20, cell.source
            assert about["figure"]["name"].startswith("fig-"), cell.source


def test_every_figure_says_what_it_drew(nb):
    for cell in code(nb):
        for output in cell.outputs:
            if output.get("data", {}).get("text/plain", "").startswith("<Figure"):
                assert DESCRIPTION in output.data, f"{cell.source}\nrun `make notebooks`"
                assert len(json.dumps(output.data[DESCRIPTION])) < 8000, cell.source


def test_each_mistake_of_a_chapter_stands_in_the_list_and_none_waits_for_a_chapter_that_is_there(nb):
    listed = (ROOT / "book" / "mistakes.md").read_text(encoding="utf-8")
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    start = next(cell.source for cell in nb.cells if "notebook.start(" in cell.source)
    (chapter,) = re.findall(r'notebook\.start\(\s*"([^"]+)"', start)
    template = f"mistake-{chapter.partition('/')[2].replace('_', '-')}"  # until its author gives it a name
    for label in re.findall(r"^\((mistake-[\w-]+)\)=$", text, re.MULTILINE):
        assert f"<{label}>" in listed or label == template
    assert f"`{chapter}`, not written yet" not in listed


def names(tree, context) -> set[str]:
    """The names that code reads (ast.Load) or sets (ast.Store)."""
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def test_a_figure_of_what_a_trained_cell_made_is_tagged_as_that_cell_is(nb):
    """Training makes other digits of another processor's last bits, which an untagged figure may not have."""
    trained = set()
    for cell in code(nb):
        tree = ast.parse(cell.source)
        if "nbval-ignore-output" in tags(cell):
            for statement in tree.body:
                if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                    trained |= names(statement, ast.Store)
        elif any(DESCRIPTION in output.get("data", {}) for output in cell.outputs):
            parameters = {one.arg for one in ast.walk(tree) if isinstance(one, ast.arg)}
            drawn = names(tree, ast.Load) - names(tree, ast.Store) - parameters
            assert not drawn & trained, cell.source


def test_evidence_stands_for_every_claim_of_a_chapter():
    claims.audit({chapter: claims.from_notebook(notebook(chapter)) for chapter in BOOK})


@pytest.mark.parametrize("chapter", BOOK)
def test_measures_have_different_names(chapter):
    names = [one.anchor for one in claims.from_notebook(notebook(chapter))]
    assert len(names) == len(set(names))


def executed(old: str = "", new: str = "") -> nbformat.NotebookNode:
    """A notebook of one executed cell, in whose outputs a text is replaced."""
    cell = nbformat.v4.new_code_cell("x", execution_count=1)
    text, page, picture = (
        text.replace(old, new)
        for text in (
            "error 0.123456\n0.5\n",
            "<table><tr><td>0.2500001</td></tr></table>",
            '<svg><path d="M 12.34 56.7" fill="#117733"/></svg>',
        )
    )
    show = nbformat.v4.new_output
    cell.outputs = [
        show("stream", name="stdout", text=text),
        show("display_data", data={"text/html": page}),
        show("display_data", data={"image/svg+xml": picture}),
    ]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), cell])


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("0.123456", "0.123457", True),
        ("\n0.5", "\n0.50001", True),
        ("0.2500001", "0.25", True),
        ("56.7", "56.71", True),
        ("0.123456", "0.1236", False),
        ("error", "loss", False),
        ("56.7", "56.8", False),
        ("#117733", "#aa4499", False),
        ("<td>", '<td class="x">', False),
    ],
)
def test_a_cell_keeps_its_committed_outputs_unless_something_moved(old, new, kept):
    nb, committed = executed(old, new), executed()
    assert nb.cells[1].outputs != committed.cells[1].outputs
    settle(nb, committed)
    assert (nb.cells[1].outputs == committed.cells[1].outputs) == kept


def test_the_passes_of_the_two_chapters_from_scratch_are_the_same():
    def defined(chapter):
        """The chapter's functions by name, with the passes under the second chapter's names."""
        text = "\n\n".join(cell.source for cell in code(nbformat.read(notebook(chapter), 4)))
        text = re.sub(r"(?<![\w.])(?:lstm_)?(forward|backward)\b(?=\(|`|$)", r"lstm_\1", text, flags=re.M)
        nodes = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        return {node.name: node for node in nodes}

    def computed(functions):
        """All gradients of a small problem by the chapter's two passes."""
        shown = {"torch": torch, "run": SimpleNamespace(seed=0)}
        for name in ("lstm_forward", "stacked", "lstm_backward", "problem"):
            exec(ast.unparse(functions[name]), shown)  # the repository's own cells
        inputs, uv = shown["problem"]()
        passed = shown["stacked"](*shown["lstm_forward"](*inputs))
        return shown["lstm_backward"](*uv, inputs[0], *passed, *inputs[3:5])

    first, second = map(defined, ("implementation/from_scratch", "implementation/autograd_function"))
    for name in ("lstm_backward", "relative", "by_autograd"):
        assert ast.unparse(first[name]) == ast.unparse(second[name])
    for mine, theirs in zip(computed(first), computed(second), strict=True):
        assert torch.equal(mine, theirs)


def test_each_number_of_the_prose_is_said_once_and_takes_its_format(nb):
    """Two cells that say one name overwrite each other: the page then shows the last value, in both places."""
    said = {}
    for cell in code(nb):
        for output in cell.outputs:
            if name := output.metadata.get("scrapbook", {}).get("name") if "metadata" in output else None:
                said.setdefault(name, set()).add(output.data[GLUE])
    assert not {name: values for name, values in said.items() if len(values) > 1}
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    for name, spec in re.findall(r"\{glue:text\}`([\w-]+)(?::([^`]*))?`", text):
        format(ast.literal_eval(*said[name]), spec)

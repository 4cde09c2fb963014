"""nbval with a tolerance for numbers: a change that is made to a cell is named, or passes.

One notebook has a cell for each change. It is executed once; nbval runs on it as it is, and with every change.
"""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from nbval_numbers import figures
from nbval_numbers.compare import Comparison

START = """\
import sys, warnings
import matplotlib.pyplot as plt, numpy as np
from IPython.display import HTML, Image, display
%matplotlib inline
x = np.linspace(0, 1, 200)
def table(loss, head="loss", *more, style=""):
    rows = [("RNN", 2), ("LSTM", loss), *more]
    rows = "".join(f"<tr>{''.join(f'<td{style}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    head = f"<thead><tr><th></th><th>{head}</th></tr></thead>"
    display(HTML(f"<p>Two models</p><table>{head}<tbody>{rows}</tbody></table>"))
def spans(v):
    display(HTML(f"<table><tr><th></th><th colspan=2>test</th></tr><tr><th></th><th>loss</th><th>time</th></tr>"
                 f"<tr><th rowspan=2>LSTM</th><td>1</td><td>2</td></tr><tr><td>3</td><td>{v}</td></tr></table>"))
def glue(name, value):
    mime = "application/papermill.record/"
    metadata = {"scrapbook": {"mime_prefix": mime, "name": name}}
    display({mime + "text/plain": repr(value)}, metadata=metadata, raw=True)
"""
LINES = "fig, ax = plt.subplots(1, 2)\nax[1].set(title='Loss')\n{}\npass"  # nbval does not know of a ; at the end
MOVED = "(relative difference {}, tolerance {})"
TRAINED = ["nbval-ignore-output"]


def line(*what: str) -> str:
    return LINES.format("\n".join(f"ax[1].{one}" for one in what))


CHANGES = {
    # what: (as committed, as changed, the lines that are told, the cell's tags)
    "a number": (
        "print('after 3 steps the error is 0.5,\\nand 1,000 others')",
        "print('after 3 steps the error is 0.501,\\nand 1,001 others')",
        [
            'stdout, "after 3 steps the error is": committed 0.5, this run 0.501 '
            + MOVED.format("0.002", "0.0001"),
            'stdout, "and": committed 1,000, this run 1,001 ' + MOVED.format("0.001", "0.0001"),
        ],
    ),
    "a number within the tolerance": ("print('error 0.5')", "print('error 0.50004')", []),
    "a residue": ("print('error 3.1e-17')", "print('error  -4.6e-17')", []),
    "a number with a tolerance of its own": ("print('error 0.5')", "print('error 0.504')", [], ["rtol-1e-2"]),
    "more than that": (
        "print('error 0.5')",
        "print('error 0.51')",
        ['stdout, "error": committed 0.5, this run 0.51 ' + MOVED.format("0.02", "0.01")],
        ["rtol-1e-2"],
    ),
    "a result": (
        "0.30281",
        "0.29442",
        ["output: committed 0.30281, this run 0.29442 " + MOVED.format("0.028", "0.0001")],
    ),
    "a number in a matrix": (
        "np.array([[1, 2], [3, 4.5]])",
        "np.array([[1, 2], [3, 4.6]])",
        ["output, line 2: committed 4.5, this run 4.6 " + MOVED.format("0.022", "0.0001")],
    ),
    "a NaN": ("float('nan')", "1.5", ["output: committed 'nan', this run '1.5'"]),
    "a glued number": (
        "glue('lag', 20); glue('lead', 30)",
        "glue('lag', 25); glue('lead', 30)",
        ["glued 'lag': committed 20, this run 25 " + MOVED.format("0.25", "0.0001")],
    ),
    "a glued number under another name": (
        "glue('lag', 20)",
        "glue('leg', 20)",
        ["glued 'lag': not in this run: '20'", "glued 'leg': only in this run: '20'"],
    ),
    "a word in a line": (
        "print('one\\ntwo models\\nthree')",
        "print('one\\ntwo\\nthree')",
        ["stdout, line 2: committed 'two models', this run 'two'"],
    ),
    "a line more": ("print('one')", "print('one\\ntwo')", ["stdout, line 2: only in this run: 'two'"]),
    "a new output": ("glue('a', 1)", "glue('a', 1); print('here\\nI am')", ["stdout: only in this run: 'here'"]),
    "a lost output": ("print('here\\nI am')", "pass", ["stdout: not in this run: 'here'"]),
    "one of three lost": (
        "display('a', 'b', 'c')",
        "display('a', 'c')",
        ["output 2: not in this run: \"'b'\""],
    ),
    "a table's cell": (
        "table(0.5)",
        "table(0.6, style=' class=wide')",
        ["table, row 'LSTM', column 'loss': committed 0.5, this run 0.6 " + MOVED.format("0.2", "0.0001")],
    ),
    "a table within the tolerance": ("table(0.5)", "table(0.500040000001, style=' class=wide')", []),
    "a table's head": (
        "table(0.5)",
        "table(0.5, 'time')",
        ["table, row 1, column 2: committed 'loss', this run 'time'"],
    ),
    "a table's row": (
        "table(0.5)",
        "table(0.5, 'loss', ('GRU', 3))",
        ["table, line 4: only in this run: 'GRU | 3'"],
    ),
    "a table with cells that span": (
        "spans(4)",
        "spans(5)",
        ["table, row 'LSTM', column 'test time': committed 4, this run 5 " + MOVED.format("0.25", "0.0001")],
    ),
    "a line of a figure": (
        line("plot(x, x, label='run 1')", "plot(x, x**2, label='run 2')"),
        line("plot(x, x, label='run 1')", "plot(x, 1.05 * x**2, label='run 2')"),
        [
            "figure, axes 2 (Loss), y limits[1]: committed 1.05, this run 1.1025 "
            "(relative difference 0.05, tolerance 0.0001; so did 1 of 1 others)",
            "figure, axes 2 (Loss), line 'run 2', y[199]: committed 1, this run 1.05 "
            "(relative difference 0.05, tolerance 0.0001; so did 16 of 18 others)",
        ],
    ),
    "a line within the tolerance": (line("plot(x, x)"), line("plot(x, x * 1.00005)"), []),
    "a logarithmic line": (
        line("semilogy([1, 1e-8])", "set_ylim(1e-9, 2)"),
        line("semilogy([1, 1.5e-8])", "set_ylim(1e-9, 2)"),
        ["figure, axes 2 (Loss), line, y[1]: committed 1e-08, this run 1.5e-08 " + MOVED.format("0.5", "0.0001")],
    ),
    "a bar": (
        line("bar(['a', 'b', 'c'], [1, 3, 2])"),
        line("bar(['a', 'b', 'c'], [1, 3, 2.5])"),
        ["figure, axes 2 (Loss), bar, height[2]: committed 2, this run 2.5 " + MOVED.format("0.25", "0.0001")],
    ),
    "a heat map": (
        line("imshow([[0, 1], [2, 4]])"),
        line("imshow([[0, 1], [3, 4]])"),
        ["figure, axes 2 (Loss), heat map, values[2]: committed 2, this run 3 " + MOVED.format("0.5", "0.0001")],
    ),
    "points": (
        line("scatter([1, 2, 4], [1, 2, 3], label='p')"),
        line("scatter([1, 3, 4], [1, 2, 3], label='p')"),
        ["figure, axes 2 (Loss), points 'p', x[1]: committed 2, this run 3 " + MOVED.format("0.5", "0.0001")],
    ),
    "a legend": (
        line("plot(x, label='LSTM')", "legend()"),
        line("plot(x, label='GRU')", "legend()"),
        [
            "figure, axes 2 (Loss), legend: committed 'LSTM', this run 'GRU'",
            "figure, axes 2 (Loss), line 'LSTM': not in this run",
            "figure, axes 2 (Loss), line 'GRU': only in this run",
        ],
    ),
    "words in a figure": (
        line("set_xticks([0, 1], [0, 'yes'])", "set_xlabel('step')", "text(0, 0, 'here')"),
        line("set_xticks([0, 1], [0, 'yeah'])", "set_xlabel('epoch')", "text(0, 0, 'there')"),
        [
            "figure, axes 2 (Loss), texts: committed 'here', this run 'there'",
            "figure, axes 2 (Loss), x label: committed 'step', this run 'epoch'",
            "figure, axes 2 (Loss), x ticks, line 2: committed 'yes', this run 'yeah'",
        ],
    ),
    "a lost figure": (line("plot(x)"), "pass", ["figure: not in this run: '<Figure size 640x480 with 2 Axes>'"]),
    "lost axes": (
        line("plot(x)"),
        "fig, ax = plt.subplots()",
        ["figure, axes 2 (Loss): not in this run"],
    ),
    "a warning": (
        "print('one')",
        "print('one'); warnings.warn('mean of 0 values')",
        ["stderr: a warning that the committed notebook has not: 'UserWarning: mean of 0 values'"],
    ),
    "progress": ("print('one')", "print('one'); print('50%', file=sys.stderr)", []),
    "a trained figure's data": (
        line("plot(x, x, label='loss 0.31')", "legend()", "bar([1, 2], [1, 2])"),
        line("plot(x, 3 * x, label='loss .42')", "legend()", "bar([1, 2], [1, 9])") + "\nprint(1)",
        [],
        TRAINED,
    ),
    "a trained figure's line": (
        line("plot(x, label='LSTM')", "plot(x, label='GRU')", "plot(x)", "plot(x)"),
        line("plot(2 * x, label='LSTM')", "plot(x)"),
        [
            "figure, axes 2 (Loss), line 'GRU': not in this run",
            "figure, axes 2 (Loss), line: committed 2 of them, this run 1",
        ],
        TRAINED,
    ),
    "a trained cell's words": ("print(1)", "print('one')", [], TRAINED),
}
OLD = line("plot(x)", "set_title('drawn before there were descriptions')")


def notebook(sources: list[str], tags: list[list[str]]) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(source, metadata={"tags": some})
            for source, some in zip(sources, tags, strict=True)
        ]
    )


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    """The notebook as committed: START, a cell for each of CHANGES, and a figure that has no description."""
    cells = list(CHANGES.values())
    nb = notebook([START, *(cell[0] for cell in cells), OLD], [[], *((*cell, [])[3] for cell in cells), []])
    load = f"--IPKernelApp.exec_lines={figures.LOAD}"
    NotebookClient(nb, kernel_name="python3", extra_arguments=[load]).execute()
    del nb.cells[-1].outputs[0].data[figures.MIME]
    return nb


@pytest.fixture(scope="module")
def told(committed, tmp_path_factory) -> tuple[dict[str, dict[int, list[str]]], str]:
    """What nbval with the plugin tells of each cell that fails, and all that it prints.

    One run is of the same notebook, and one of it with every cell changed.
    """
    changed = copy.deepcopy(committed)
    for cell, change in zip(changed.cells[1:], CHANGES.values(), strict=False):
        cell.source = change[1]
    folder = tmp_path_factory.mktemp("told")
    nbformat.write(committed, folder / "same.ipynb")
    nbformat.write(changed, folder / "changed.ipynb")
    (folder / "conftest.py").write_text('pytest_plugins = ["nbval_numbers.plugin"]')
    (folder / "pytest.ini").touch()
    tools = Path(figures.__file__).parent.parent
    options = ["-q", "--nbval", "--nbval-current-env", "--color=no", "-o", f"pythonpath={tools}", "-o", "addopts="]
    options += ["-p", "no:cacheprovider", "-rN"]  # without a summary: where CI is set it repeats every message
    command = [sys.executable, "-m", "pytest", *options, "same.ipynb", "changed.ipynb"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = {"same": {}, "changed": {}}
    for name, k in re.findall(r"^_+ (\w+).ipynb::Cell (\d+) _+$", done.stdout, re.M):
        found[name][int(k)] = []
    for name, k, words in re.findall(r"^(\w+).ipynb, cell (\d+), (.*)$", done.stdout, re.M):
        found[name][int(k)].append(words)
    cells = sum(len(cells) for cells in found.values())
    assert f"{cells} failed, {2 * len(committed.cells) - cells} passed" in done.stdout, done.stdout + done.stderr
    return found, done.stdout


def test_nothing_is_told_of_the_same_run(told):
    assert not told[0]["same"], told[1]


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_named(told, what):
    found, said = told
    expected = CHANGES[what][2]
    assert found["changed"].get(list(CHANGES).index(what) + 1, []) == expected, said


def test_a_figure_without_description_is_not_compared(told):
    assert len(CHANGES) + 1 not in told[0]["changed"]


def test_descriptions_are_small_and_the_same_each_time():
    x = np.linspace(0, 1, 5000)

    def draw() -> dict:
        fig, axes = plt.subplots(2, 3)
        for ax in axes.flat:
            for k in range(30):
                ax.plot(x, x**k, label=f"power {k}" if k < 3 else None)
            ax.bar(range(40), range(40))
        plt.close(fig)
        return figures.describe(fig)

    first = json.dumps(draw(), allow_nan=False)
    assert len(first) < 8000
    assert first == json.dumps(draw())


def test_a_figure_is_left_as_it_is():
    fig, ax = plt.subplots()
    ax.plot([1, 2, 3])
    fig.canvas.draw()
    before = np.asarray(fig.canvas.buffer_rgba()).copy()
    figures.describe(fig)
    fig.canvas.draw()
    assert (np.asarray(fig.canvas.buffer_rgba()) == before).all()
    plt.close(fig)


def test_missing_infinite_and_masked_numbers_are_described_and_compared():
    assert figures.summary(np.ma.masked_less([1.0, 2, np.inf], 2)) == "n=3 at=nan,2,inf"
    comparison = Comparison(rtol=1e-4)
    comparison.vector("y", "n=3 at=nan,2,inf", "n=3 at=nan,2,inf")
    assert comparison.told == []
    comparison.vector("y", "n=3 at=nan,2,inf", "n=3 at=1,2,inf")
    assert comparison.told == ["y[0]: committed nan, this run 1 (tolerance 0.0001)"]

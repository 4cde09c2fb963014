"""The doctor tells what is missing, and which chapters that stops."""

from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from packaging.requirements import Requirement

import doctor
from chapters import ROOT, chapters, notebook
from lstm_lib.book import datasets


@pytest.fixture(scope="module")
def needs() -> dict[Path, tuple[set[str], set[str]]]:
    """What each chapter needs; to find it in all of them takes seconds."""
    return {path: doctor.needs(nbformat.read(path, 4)) for path in map(notebook, chapters())}


@pytest.fixture
def away(monkeypatch, needs) -> set[str]:
    """Data sets that no road gives; nothing is fetched for the others, and no chapter read again."""
    names = set()
    monkeypatch.setattr(doctor, "nbformat", SimpleNamespace(read=lambda path, as_version: path))
    monkeypatch.setattr(doctor, "needs", needs.get)

    def load(name):
        if name in names:
            raise datasets.DatasetUnreachable(f"{name} is not to be had\nfor many reasons")

    monkeypatch.setattr(datasets, "load", load)
    return names


def test_it_knows_the_pins_as_pip_reads_them():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    read = [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]
    assert doctor.pinned() == {need.name: str(need.specifier).removeprefix("==") for need in read}


def test_another_version_and_a_missing_package_are_told_apart():
    found = doctor.not_as_pinned({"pytest": "0.1", "no-such-package": "1.0", "nbformat": nbformat.__version__})
    assert found == {"pytest": pytest.__version__, "no-such-package": None}


def test_what_a_chapter_needs_is_read_from_its_code():
    code = '%matplotlib inline\nimport optuna\nx = datasets.load("traffic")["volume"]'
    nb = new_notebook(cells=[new_markdown_cell('`datasets.load("sp500")`, `import onnx`'), new_code_cell(code)])
    assert doctor.needs(nb) == ({"optuna", "scikit-learn"}, {"traffic"})


def test_every_data_set_is_some_chapter_s_need(needs):
    assert set().union(*(data for _, data in needs.values())) == set(datasets.names())


def test_nothing_missing_is_nothing_stopped(away, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "not_as_pinned", lambda pins: {})
    assert doctor.main() == 0
    assert f"Chapters: {len(chapters())} of {len(chapters())} run here" in capsys.readouterr().out


def test_what_is_missing_stops_the_chapters_that_need_it_and_no_others(away, capsys, monkeypatch):
    away.add("chickenpox")
    monkeypatch.setattr(doctor, "not_as_pinned", lambda pins: {"onnx": None, "torch": "2.12.0"})
    assert doctor.main() == 1
    told = capsys.readouterr().out
    assert "  chickenpox: chickenpox is not to be had\n" in told
    assert "for many reasons" not in told
    assert "  onnx: missing\n  torch: 2.12.0 in place of" in told
    assert "optimization/learning_rate_and_size stops for want of chickenpox" in told
    assert "implementation/deployment stops for want of onnx" in told
    assert "gates/the_cell" not in told

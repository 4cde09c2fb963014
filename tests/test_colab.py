"""Colab, rehearsed: PyTorch, NumPy, Matplotlib and a kernel are there; a chapter comes alone and fetches the rest.

The address is that of a clone on this disk; for everything else a chapter runs as it will when it is published.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import nbformat
import pytest
from clone import clone, git
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

import setup_cell
from chapters import ROOT, chapters, notebook

THERE = ("torch", "numpy", "matplotlib", "ipykernel")
"""What Colab has, of all that the book needs."""

REHEARSED = ("gates/the_cell",)
"""Chapters that are run to their end; REHEARSE=all takes every one."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""Nothing here leads to the library of this clone."""


class Machine:
    """A computer that has never seen the book."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=True, symlinks=os.name != "nt")
        self.python = str(next((folder / "venv").glob("bin/python" if os.name != "nt" else "Scripts/python.exe")))
        pins = re.findall(rf"^(?:{'|'.join(THERE)})==\S+", (ROOT / "requirements.txt").read_text("utf-8"), re.M)
        assert len(pins) == len(THERE)
        self.pip("install", "--quiet", "--no-compile", *pins)  # PyTorch has thousands of files
        self.site = Path(self.run("import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        self.packages = self.installed()
        spec = folder / "kernels" / "colab" / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(
            json.dumps(
                {
                    "argv": [self.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                    "display_name": "Colab",
                    "language": "python",
                }
            )
        )

    def pip(self, *arguments: str) -> str:
        return subprocess.run(
            [self.python, "-m", "pip", *arguments], env=ENVIRONMENT, check=True, text=True, stdout=subprocess.PIPE
        ).stdout

    def run(self, code: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run code outside the book."""
        return subprocess.run(
            [self.python, "-c", code],
            env=ENVIRONMENT,
            cwd=self.folder,
            check=check,
            text=True,
            capture_output=True,
        )

    def installed(self) -> dict[str, str]:
        """Names and versions of all packages."""
        return {package["name"]: package["version"] for package in json.loads(self.pip("list", "--format=json"))}

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file of PyTorch and NumPy, of their package data too."""
        folders = [folder for name in ("torch", "numpy") for folder in self.site.glob(f"{name}*")]
        assert len(folders) >= 4
        return {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }

    def execute(self, chapter: str, url: str, folder: Path) -> nbformat.NotebookNode:
        """Run a chapter, alone in a folder, with the set-up cell of a book at ``url``."""
        nb = nbformat.read(notebook(chapter), 4)
        setup_cell.fill(nb, url)
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(nb, folder / "chapter.ipynb")
        manager = AsyncKernelManager(
            kernel_name="colab", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(self.folder / "kernels")])
        )
        client = NotebookClient(nb, km=manager, timeout=300, resources={"metadata": {"path": str(folder)}})
        return client.execute(env=ENVIRONMENT | {"LSTM_LIB_CACHE": str(self.folder / "data")})


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machine")
    yield Machine(folder)
    shutil.rmtree(folder / "venv")  # pytest would keep three of them, and PyTorch is large


@pytest.fixture
def machine(new):
    """The machine, new again after each test."""
    yield new
    if added := sorted(set(new.installed()) - set(new.packages)):
        new.pip("uninstall", "--quiet", "--yes", *added)
    assert new.installed() == new.packages


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    return clone(tmp_path_factory.mktemp("book"))


def rehearsed() -> list[str]:
    everything = os.environ.get("REHEARSE") == "all"
    return [name for name in chapters() if everything or name in REHEARSED]


def test_there_is_a_chapter_to_rehearse():
    assert rehearsed()


@pytest.mark.parametrize("chapter", rehearsed())
def test_chapter_runs_alone_and_torch_stays_as_it_is(machine, book, tmp_path, chapter):
    before = machine.files()
    nb = machine.execute(chapter, book.as_uri(), tmp_path)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "lstm-lib" in machine.installed()
    assert machine.packages.items() <= machine.installed().items(), "something was replaced"
    assert machine.files() == before


def test_library_arrives_whole_and_once(machine, book):
    machine.run(setup_cell.text(book.as_uri()))
    source = {path.relative_to(book) for path in (book / "lstm_lib").rglob("*") if path.is_file()}
    arrived = {
        path.relative_to(machine.site)
        for path in (machine.site / "lstm_lib").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert arrived == source
    modules = ", ".join(".".join(path.with_suffix("").parts) for path in source if path.suffix == ".py")
    origin = machine.run(f"import {modules}; print(lstm_lib.__file__)").stdout.strip()
    assert Path(origin) == machine.site / "lstm_lib" / "__init__.py"
    machine.run(setup_cell.text("file:///nowhere"))  # a second run of the cell asks for nothing


def test_failed_install_says_what_to_do(machine, tmp_path):
    done = machine.run(setup_cell.text(tmp_path.as_uri()), check=False)
    assert done.returncode == 1
    error = done.stderr[done.stderr.index("\nImportError: ") :]
    assert "git clone" in error, "pip's own words come first"
    assert f"pip could not install git+{tmp_path.as_uri()}. " in error
    assert "run this cell again" in " ".join(error.split()).lower()
    assert f"`{machine.python} -m pip install -e .`" in error
    assert machine.installed() == machine.packages


def test_a_library_that_needs_another_torch_is_not_installed(machine, tmp_path_factory):
    book = clone(tmp_path_factory.mktemp("demanding"))
    project = book / "pyproject.toml"
    project.write_text(project.read_text("utf-8").replace('"torch>=2.4"', '"torch==0.0.1"'), "utf-8")
    git("commit", "--quiet", "--all", "--message=another torch", at=book)
    before = machine.files()
    done = machine.run(setup_cell.text(book.as_uri()), check=False)
    assert re.search(r"Cannot install lstm-lib\S* and torch\S* because .* conflict", done.stderr)
    assert "pip could not install git+" in done.stderr
    assert machine.files() == before


def test_without_torch_nothing_is_installed():
    bare = [sys.executable, "-I", "-S", "-c"]  # the standard library alone
    done = subprocess.run([*bare, setup_cell.text("file:///nowhere")], text=True, capture_output=True)
    assert done.stderr.splitlines()[-1].startswith("ImportError: PyTorch is missing. Install it")


def test_unpublished_book_says_how_to_install_it_and_that_works(machine, book):
    cell = setup_cell.text(setup_cell.PLACEHOLDER)
    done = machine.run(cell, check=False)
    assert done.returncode == 1
    assert "git" not in cell
    advice = re.search(r"ImportError: .*Run `(.*) (-m pip install -e \.)` in your copy", done.stderr)
    assert advice[1] == machine.python
    subprocess.run([advice[1], *advice[2].split()], cwd=book, env=ENVIRONMENT, check=True, capture_output=True)
    machine.run(cell)


def test_a_package_of_one_chapter_arrives_with_the_library(machine, book):
    cell = setup_cell.text(book.as_uri(), {"jiwer": setup_cell.optional()["jiwer"]})
    machine.run(cell)
    machine.run("import jiwer, lstm_lib")
    machine.pip("uninstall", "--quiet", "--yes", "jiwer")
    machine.run(cell)  # the library is there already
    machine.run("import jiwer, lstm_lib")
    assert machine.packages.items() <= machine.installed().items(), "something was replaced"


@pytest.mark.parametrize("chapter", chapters())
def test_chapter_imports_only_what_the_library_or_its_set_up_cell_brings(chapter):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    brought = {re.match(r"[\w-]+", need)[0] for need in project["dependencies"]}
    nb = nbformat.read(notebook(chapter), 4)
    [cell] = [cell for cell in nb.cells if setup_cell.TAG in cell.metadata.get("tags", ())]
    own = {name for name in setup_cell.optional() if f'"{name}"' in cell.source}
    known = brought | own | {"lstm_lib", "IPython"} | set(sys.stdlib_module_names)
    assert setup_cell.imported(nb) <= known

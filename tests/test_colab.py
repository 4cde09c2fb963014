"""Colab, rehearsed: PyTorch, NumPy, Matplotlib and a kernel are there; a chapter comes alone and fetches the rest.

The address is that of a clone on this disk; for everything else a chapter runs as it will when it is published.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
import venv
from importlib.metadata import distribution, distributions, packages_distributions, requires
from pathlib import Path

import nbformat
import pytest
from clone import clone, git
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
        venv.create(folder / "venv", symlinks=os.name != "nt")
        self.python = str(next((folder / "venv").glob("bin/python" if os.name != "nt" else "Scripts/python.exe")))
        self.site = Path(self.run("import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        # A new pip, as Colab has: that of a venv takes an extra from an address of the network, but of no disk.
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", self.site, "pip"]
        subprocess.run(pip, env=ENVIRONMENT, check=True)
        for name in brought(set(THERE)):
            self.take(name)
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

    def take(self, name: str) -> None:
        """Have a package that is here, by links to its files: PyTorch has thousands, and they are large."""
        package = distribution(name)
        for file in package.files:
            there, here = self.site / file, Path(package.locate_file(file))
            if ".." not in file.parts and here.is_file():
                there.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(here, there)
                except OSError:  # another disk
                    shutil.copy2(here, there)

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
        return {package.name: package.version for package in distributions(path=[str(self.site)])}

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
        client.owns_km = True  # and ends the kernel
        return client.execute(env=ENVIRONMENT | {"LSTM_LIB_CACHE": str(self.folder / "data")})


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machine")
    yield Machine(folder)
    shutil.rmtree(folder / "venv")  # pytest would keep three of them, and PyTorch is large


@pytest.fixture
def machine(new):
    """The machine, without the library after each test; what the library needs remains, for the next."""
    yield new
    if added := sorted({"jiwer", "lstm-lib"} & new.installed().keys()):
        new.pip("uninstall", "--quiet", "--yes", *added)
    assert not {"jiwer", "lstm-lib"} & new.installed().keys()
    assert new.packages.items() <= new.installed().items(), "something was replaced"


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    return clone(tmp_path_factory.mktemp("book"), only=())


def module(path: Path) -> str:
    """The name by which a file of the library is imported."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def rehearsed() -> list[str]:
    everything = os.environ.get("REHEARSE") == "all"
    return [name for name in chapters() if everything or name in REHEARSED]


def test_there_is_a_chapter_to_rehearse():
    assert rehearsed()


@pytest.mark.parametrize("chapter", rehearsed())
def test_chapter_runs_alone_and_torch_stays_as_it_is(machine, book, tmp_path, chapter):
    before = machine.files()
    assert "lstm-lib" not in machine.installed()
    nb = machine.execute(chapter, book.as_uri(), tmp_path)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "lstm-lib" in machine.installed()
    assert machine.packages.items() <= machine.installed().items(), "something was replaced"
    assert machine.files() == before


def test_library_arrives_whole_and_once_with_a_package_of_one_chapter(machine, book):
    cell = setup_cell.text(book.as_uri(), {"jiwer": setup_cell.optional()["jiwer"]})
    machine.run(cell)
    source = {path.relative_to(book) for path in (book / "lstm_lib").rglob("*") if path.is_file()}
    arrived = {
        path.relative_to(machine.site)
        for path in (machine.site / "lstm_lib").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert arrived == source
    modules = ", ".join(module(path) for path in source if path.suffix == ".py")
    origin = machine.run(f"import jiwer, {modules}; print(lstm_lib.__file__)").stdout.strip()
    assert Path(origin) == machine.site / "lstm_lib" / "__init__.py"
    machine.run(cell.replace(book.as_uri(), "file:///nowhere"))  # a second run of the cell asks for nothing
    machine.pip("uninstall", "--quiet", "--yes", "jiwer")
    machine.run(cell)  # the library is there already
    machine.run("import jiwer, lstm_lib")


def test_failed_install_says_what_to_do(machine, tmp_path):
    before = machine.installed()
    done = machine.run(setup_cell.text(tmp_path.as_uri()), check=False)
    assert done.returncode == 1
    error = done.stderr[done.stderr.index("\nImportError: ") :]
    assert "git clone" in error, "pip's own words come first"
    assert f"pip could not install lstm-lib[book] @ git+{tmp_path.as_uri()}. " in error
    assert "run this cell again" in " ".join(error.split()).lower()
    assert f'`{machine.python} -m pip install -e ".[book]"`' in error
    assert machine.installed() == before


def test_a_library_that_needs_another_torch_is_not_installed(machine, tmp_path_factory):
    book = clone(tmp_path_factory.mktemp("demanding"), only=())
    project = book / "pyproject.toml"
    text, changed = re.subn(r'"torch>=[\d.]+"', '"torch==0.0.1"', project.read_text("utf-8"))
    assert changed == 1
    project.write_text(text, "utf-8")
    git("commit", "--quiet", "--all", "--message=another torch", at=book)
    before = machine.files()
    done = machine.run(setup_cell.text(book.as_uri()), check=False)
    assert re.search(r"Cannot install lstm-lib\S* and torch\S* because .* conflict", done.stderr)
    assert "pip could not install lstm-lib[book] @ git+" in done.stderr
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
    advice = re.search(r'ImportError: .*Run `(.*) (-m pip install -e "\.\[book\]")` in your copy', done.stderr)
    assert advice[1] == machine.python
    subprocess.run(
        [advice[1], *shlex.split(advice[2])], cwd=book, env=ENVIRONMENT, check=True, capture_output=True
    )
    machine.run(cell)
    machine.run("from lstm_lib.book import datasets; print(datasets.cache_folder())")


# What is needed is what is declared


def declared(extra: str = "") -> set[str]:
    """What pyproject.toml has the library need, or one of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {canonicalize_name(Requirement(need).name) for need in needs}


def imported(*paths: Path) -> set[str]:
    """The packages of others that modules import, at their top or within."""
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return others({name.split(".")[0] for name in names})


def others(names: set[str]) -> set[str]:
    """The packages among the names of modules, as pip calls them: neither Python's own nor this one."""
    pip_name = {module: name for name, module in setup_cell.IMPORTED_AS.items()}
    return {canonicalize_name(pip_name.get(name, name)) for name in names - sys.stdlib_module_names - {"lstm_lib"}}


def brought(names: set[str]) -> set[str]:
    """These packages and all that pip installs with them, as far as they are here."""
    known, waiting = set(), {canonicalize_name(name) for name in names}
    here = {canonicalize_name(name) for found in packages_distributions().values() for name in found}
    while waiting:
        name = waiting.pop()
        known.add(name)
        needs = [Requirement(need) for need in (requires(name) if name in here else None) or ()]
        waiting |= {canonicalize_name(n.name) for n in needs if not n.marker or n.marker.evaluate({"extra": ""})}
        waiting -= known
    return known


def test_the_library_and_its_extras_need_what_they_import():
    layers = imported(*ROOT.glob("lstm_lib/*.py"))
    book = imported(*ROOT.glob("lstm_lib/book/*.py"))
    own = set().union(*(others(setup_cell.imported(nbformat.read(notebook(name), 4))) for name in chapters()))
    along = others({name for names in setup_cell.ALONG.values() for name in names})
    assert declared() == layers | {"numpy"}  # PyTorch warns where it is missing
    assert declared("book") == book - declared()
    assert declared("chapters") == own - declared() - book | along


def test_the_layers_import_with_nothing_but_what_the_library_needs():
    """A finder that hides all other packages stands in for a machine that lacks them."""
    there = brought(declared())
    assert "matplotlib" not in there
    hidden = {
        name
        for name, found in packages_distributions().items()
        if not set(map(canonicalize_name, found)) & (there | {"lstm-lib"})
    }
    assert {"matplotlib", "pooch", "IPython", "onnx", "onnxruntime", "onnxscript", "yaml", "pytest"} <= hidden
    modules = [module(path.relative_to(ROOT)) for path in ROOT.glob("lstm_lib/*.py")]
    script = f"""
        import importlib, sys

        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {hidden}:
                    raise ModuleNotFoundError(f"{{name}} is hidden", name=name)

        sys.meta_path.insert(0, Hide())
        for module in {modules}:
            importlib.import_module(module)
        print("matplotlib" in sys.modules)
        import lstm_lib.book.plots
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, text=True, capture_output=True
    )
    assert done.stdout == "False\n", done.stderr
    assert "ModuleNotFoundError: matplotlib is hidden" in done.stderr, "the book's wing needs its extra"


@pytest.mark.parametrize("chapter", chapters())
def test_chapter_imports_only_what_the_library_or_its_set_up_cell_brings(chapter):
    nb = nbformat.read(notebook(chapter), 4)
    [cell] = [cell for cell in nb.cells if setup_cell.TAG in cell.metadata.get("tags", ())]
    own = {name for name in setup_cell.optional() if f'"{name}"' in cell.source}
    assert others(setup_cell.imported(nb)) <= declared() | declared("book") | others(own)


@pytest.mark.parametrize(
    ("chapter", "names", "packages"),
    [
        ("implementation/deployment", {"onnx", "onnxruntime", "onnxscript"}, "onnx onnxruntime onnxscript"),
        ("optimization/search", {"optuna", "sklearn"}, "optuna scikit-learn"),  # for the importances
    ],
)
def test_a_chapter_brings_what_its_packages_import_late(chapter, names, packages):
    nb = nbformat.read(notebook(chapter), 4)
    for url in (setup_cell.PLACEHOLDER, "https://github.com/someone/some-book"):
        cell = setup_cell.of(nb, url)
        assert names <= set(re.findall(r'^    "(\w+)"', cell, re.MULTILINE))
        assert f'-m pip install -e ".[book]" {packages}`' in cell


def test_everything_that_is_needed_is_pinned():
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    assert declared() | declared("book") | declared("chapters") <= {canonicalize_name(name) for name in pinned}

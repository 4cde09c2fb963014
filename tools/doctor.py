"""`make doctor`: does the book run here? Python, packages, device, data, and which chapters stop at what.

It fetches the data that are not at hand yet, so a book that the doctor passed runs without a network.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
import torch
from packaging.requirements import Requirement

import setup_cell
from chapters import ROOT, chapters, notebook
from lstm_lib.book import datasets

OLDEST = (3, 11)


def pinned(root: Path = ROOT) -> dict[str, str]:
    """The packages of requirements.txt and the version of each."""
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", "\n".join(lines), re.MULTILINE))


def not_as_pinned(pins: dict[str, str]) -> dict[str, str | None]:
    """What is here in another version (``2.13.0+cpu`` is 2.13.0), or None where it is missing."""
    found = {}
    for name, version in pins.items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            here = None
        if here is None or here.partition("+")[0] != version:
            found[name] = here
    return found


def out_of_reach(names: Iterable[str]) -> dict[str, str]:
    """The data sets that no road gives here, and why, in a line."""
    found = {}
    for name in names:
        try:
            datasets.load(name)
        except datasets.DatasetError as problem:
            found[name] = str(problem).splitlines()[0]
    return found


def needs(nb: nbformat.NotebookNode) -> tuple[set[str], set[str]]:
    """What a chapter needs beyond the library: packages, as pip calls them, and data sets."""
    packages = {Requirement(need).name for need in setup_cell.needed(nb).values()}
    words = {node.value for node in ast.walk(setup_cell.code(nb)) if isinstance(node, ast.Constant)}
    return packages, words & set(datasets.names())


def device() -> str:
    """What computes here, in words."""
    cores = f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    if not torch.cuda.is_available():
        return f"CPU ({cores}); no GPU for PyTorch, so SCALE=full takes hours"
    gpu = torch.cuda.get_device_properties(0)
    return f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GB; CPU ({cores})"


def main() -> int:
    """Say what was found; the exit status is 1 if a chapter stops."""
    verdict = "fine" if sys.version_info >= OLDEST else f"{'.'.join(map(str, OLDEST))} or newer is needed"
    print(f"Python {platform.python_version()}: {verdict}")
    print("Device:", device())

    pins = pinned()
    other = not_as_pinned(pins)
    print(f"Packages: {len(pins) - len(other)} of {len(pins)} as pinned")
    for name, here in other.items():
        print(f"  {name}: {f'{here} in place of {pins[name]}' if here else 'missing'}")
    if "torch" in other:
        print("  Trained numbers will differ from the printed ones; the bounds of the claims should still hold.")

    size = sum(datasets.card(name).size for name in datasets.names()) / 1e6
    print(f"Data: {len(datasets.names())} sets, {size:.0f} MB, kept in {datasets.cache_folder()}")
    away = out_of_reach(datasets.names())
    for name, why in away.items():
        print(f"  {name}: {why}")

    stops = {}
    for chapter in chapters():
        packages, data = needs(nbformat.read(notebook(chapter), as_version=4))
        missing = sorted(name for name in packages if name in other and other[name] is None)
        if lacking := [*missing, *sorted(data & set(away))]:
            stops[chapter] = lacking
    print(f"Chapters: {len(chapters()) - len(stops)} of {len(chapters())} run here")
    for chapter, lacking in stops.items():
        print(f"  {chapter} stops for want of {', '.join(lacking)}")
    return bool(stops)


if __name__ == "__main__":
    sys.exit(main())

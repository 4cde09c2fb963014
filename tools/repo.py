"""`make repo URL=https://github.com/OWNER/NAME`: publish the book, or move a fork.

The repository's address stands once, in `_config.yml`. This writes it there, turns on the buttons that need it,
and brings along what follows from it: the chapters' set-up cells, and pages that quote the address.
`make repo URL=placeholder` takes all of it back.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import yaml

import setup_cell
from chapters import ROOT
from lstm_lib import files

QUOTING = (
    "README.md",
    "CONTRIBUTING.md",
    "CITATION.cff",
    "pyproject.toml",
    "book/**/*.md",
    "notebooks/**/*.ipynb",
)

COMMENTS = 38
"""The column at which comments stand in `_config.yml`."""


def checked(url: str) -> str:
    """The address as it is written everywhere.

    Parameters
    ----------
    url : str
        ``https://github.com/OWNER/NAME``, with or without ``.git`` or a slash at its end, or ``placeholder``.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For anything else. Only GitHub will do: Colab opens notebooks, and Pages publishes books, from there.

    Examples
    --------
    >>> checked("https://github.com/someone/some-book.git")
    'https://github.com/someone/some-book'
    """
    if url == "placeholder":
        return setup_cell.PLACEHOLDER
    # GitHub's rules: an owner has letters, digits and single hyphens within, a name dots and underscores too.
    owner, name = r"(?=.{1,39}/)[A-Za-z\d]+(?:-[A-Za-z\d]+)*", r"(?!\.(?:\.|git)?/?$)[\w.-]{1,100}?"
    found = re.fullmatch(rf"(https://github\.com/{owner}/{name})(?:\.git)?/?", url, re.ASCII)
    if not found:
        raise ValueError(
            "URL must be https://github.com/OWNER/NAME, both as GitHub allows them, or the word placeholder for a "
            f"book that is not published, got {url!r}"
        )
    return found[1]


def settings(url: str) -> dict[str, str]:
    """The lines of `_config.yml` that follow from the address: key and YAML value."""
    if url == setup_cell.PLACEHOLDER:
        colab = binder = site = '""'
        button = "false"
    else:
        owner, name = url.split("/")[-2:]
        host = f"{owner.lower()}.github.io"
        site = f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"
        colab, binder, button = "https://colab.research.google.com", "https://mybinder.org", "true"
    return {
        "url": url,
        "colab_url": colab,
        "binderhub_url": binder,
        "use_repository_button": button,
        "use_issues_button": button,
        "use_edit_page_button": button,
        "baseurl": site,
    }


def configured(config: str, url: str) -> str:
    """The text of `_config.yml` with the settings for ``url``; all else keeps its bytes.

    Raises
    ------
    ValueError
        If a setting does not stand exactly once, on a line of its own, two spaces in.
    """
    for key, value in settings(url).items():
        lines = list(re.finditer(rf"^  {key}:.*$", config, re.MULTILINE))
        if len(lines) != 1:
            raise ValueError(f"_config.yml: {key} stands on {len(lines)} lines, need one, '  {key}: value'")
        line, comment = f"  {key}: {value}", re.search(r"\s(#.*)$", lines[0][0])
        if comment:
            line = f"{line:<{COMMENTS - 2}}  {comment[1]}"
        config = config[: lines[0].start()] + line + config[lines[0].end() :]
    return config


def move(url: str, root: Path = ROOT) -> list[Path]:
    """Bring all files to an address; nothing is written before every one of them is known to be in order.

    Parameters
    ----------
    url : str
        As :func:`checked` returns it.
    root : Path
        The folder of the book.

    Returns
    -------
    list of Path
        The files that changed.

    Raises
    ------
    ValueError
        If `_config.yml` lacks a setting, or a chapter its set-up cell.
    """
    config = root / "_config.yml"
    old = yaml.safe_load(config.read_text(encoding="utf-8"))["repository"]["url"]
    quoted = re.compile(rf"{re.escape(old)}(?![\w-])")  # and not the beginning of a longer name
    texts = {}
    for path in sorted(path for pattern in QUOTING for path in root.glob(pattern)):
        if ".ipynb_checkpoints" in path.parts:
            continue
        texts[path] = quoted.sub(url, path.read_text(encoding="utf-8"))
        if path.suffix == ".ipynb":
            notebook = nbformat.reads(texts[path], nbformat.NO_CONVERT)
            try:
                setup_cell.fill(notebook, url)
            except ValueError as problem:
                raise ValueError(f"{path.relative_to(root)}: {problem}") from problem
            texts[path] = nbformat.writes(notebook) + "\n"
    # The settings last: a run that was stopped can then be repeated, for it still knows the old address.
    texts[config] = configured(config.read_text(encoding="utf-8"), url)
    changed = [path for path in texts if texts[path] != path.read_text(encoding="utf-8")]
    for path in changed:
        files.write(path, texts[path])
    return changed


def main(arguments: list[str]) -> None:
    """Move the book to the address on the command line."""
    if len(arguments) != 1:
        raise SystemExit("say where to: make repo URL=https://github.com/OWNER/NAME, or URL=placeholder")
    try:
        url = checked(arguments[0])
        changed = move(url)
    except ValueError as problem:
        raise SystemExit(str(problem)) from None
    print(*(path.relative_to(ROOT) for path in changed), f"{len(changed)} files changed: {url}", sep="\n")
    if changed and url != setup_cell.PLACEHOLDER:
        print("Commit and push them. GitHub's Settings > Pages > Source must say GitHub Actions.")


if __name__ == "__main__":
    main(sys.argv[1:])

"""A clone of the book as it stands, uncommitted changes included, for tests that change or publish one."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from chapters import ROOT


def git(*arguments: str, at: Path) -> str:
    """Run git in a folder and return what it prints."""
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run([*command, *arguments], cwd=at, check=True, capture_output=True, text=True).stdout


def clone(folder: Path, only: Iterable[str] | None = None) -> Path:
    """Copy what git knows or would add into ``folder``, commit it there, and return the folder.

    Of the chapters, it has ``only`` these, where they are named: all of them are many megabytes.
    """
    kept = None if only is None else {f"notebooks/{chapter}.ipynb" for chapter in only}
    for name in git("ls-files", "--cached", "--others", "--exclude-standard", "-z", at=ROOT).split("\0"):
        left_out = kept is not None and name.endswith(".ipynb") and name not in kept
        if name and (ROOT / name).is_file() and not left_out:  # nor what is deleted but not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git("init", "--quiet", "--initial-branch=main", at=folder)
    git("add", "--all", at=folder)
    git("commit", "--quiet", "--message=the book", at=folder)
    return folder

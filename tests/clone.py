"""A clone of the book as it stands, uncommitted changes included, for tests that change or publish one."""

import shutil
import subprocess
from pathlib import Path

from chapters import ROOT


def git(*arguments: str, at: Path) -> str:
    """Run git in a folder and return what it prints."""
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run([*command, *arguments], cwd=at, check=True, capture_output=True, text=True).stdout


def clone(folder: Path) -> Path:
    """Copy what git knows or would add into ``folder``, commit it there, and return the folder."""
    for name in git("ls-files", "--cached", "--others", "--exclude-standard", "-z", at=ROOT).split("\0"):
        if name and (ROOT / name).is_file():  # not what is deleted but not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git("init", "--quiet", "--initial-branch=main", at=folder)
    git("add", "--all", at=folder)
    git("commit", "--quiet", "--message=the book", at=folder)
    return folder

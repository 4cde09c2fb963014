"""`make chapter NB=PART/NAME`: begin a chapter, as text.

It writes `notebooks/PART/NAME.py` from `template.txt`, which jupytext turns into the notebook, and the list of its
exercises that answer. As it is, it runs and passes the tests: replace it piece by piece.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from chapters import ROOT, chapters
from lstm_lib import files

ANSWERS = """\
[half]
equals = 6.58
hint = "Which power of 0.9 is 0.5?"
mistakes = [
    {equals = 5.0, hint = "A tenth of what is left goes at each step, not a tenth of what there was."},
]
"""


def text(chapter: str) -> str:
    """The template as the text of a chapter, such as ``gates/a_new_one``."""
    dashed = chapter.rpartition("/")[2].replace("_", "-")
    template = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    return template.replace("PART/NAME", chapter).replace("DASHED", dashed)


def main(arguments: list[str]) -> None:
    """Write the text of the chapter named on the command line."""
    if len(arguments) != 1 or not re.fullmatch(r"[a-z]+/[a-z][a-z0-9_]*", arguments[0]):
        raise SystemExit(f"NB must be one name such as gates/a_new_one, got {' '.join(arguments) or 'none'}")
    (chapter,) = arguments
    path = ROOT / "notebooks" / f"{chapter}.py"
    if chapter in chapters() or path.exists() or path.with_suffix(".ipynb").exists():
        raise SystemExit(f"NB must be a new name, and {chapter} is there already")
    files.write(path, text(chapter))
    files.write(ROOT / "lstm_lib" / "book" / "exercises" / f"{chapter}.toml", ANSWERS)
    print(f"{path.relative_to(ROOT)} is written; README.md, Add a chapter, has the next steps")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Files written whole or not at all: at every instant a name stands for what was there, or for all that is new."""

from __future__ import annotations

import glob
import os
import secrets
from pathlib import Path

__all__ = ["leftovers", "write"]


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file whole or not at all, whoever else writes it at the same time.

    Parameters
    ----------
    path : path
        The file, which is replaced if it exists; its folder is made if need be.
    content : bytes or str
        Text is written in UTF-8, with the line ends that it has.

    Raises
    ------
    OSError
        If it cannot be written. What was there before is there still.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/new/note.txt", "whole")
    ...     Path(folder, "new", "note.txt").read_text(), len(os.listdir(f"{folder}/new"))
    ('whole', 1)
    """
    path, data = Path(path), content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # to the disk first: the new name must not outlive what it stands for
        os.replace(part, path)
    except PermissionError:
        # Windows does not replace a file that another process is reading, such as one that wrote the same.
        if not path.is_file() or path.read_bytes() != data:
            raise
    finally:
        part.unlink(missing_ok=True)


def leftovers(path: str | os.PathLike[str]) -> list[Path]:
    """The files that processes killed in :func:`write` left beside ``path``.

    Parameters
    ----------
    path : path
        What they were about to write.

    Returns
    -------
    list of Path
        They can go, unless someone is writing this file right now.
    """
    path = Path(path)
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"))

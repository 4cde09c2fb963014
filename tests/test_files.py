"""Files whole or not at all, against interrupts, other writers and `kill -9`."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from chapters import ROOT
from lstm_lib import checkpoints
from lstm_lib.files import leftovers, write


def test_bytes_and_text_are_written_as_they_are(tmp_path):
    write(tmp_path / "new" / "folder" / "a.bin", b"\r\n\0")
    write(str(tmp_path / "a.txt"), "σ × −\n\r\n")
    assert (tmp_path / "new" / "folder" / "a.bin").read_bytes() == b"\r\n\0"
    assert (tmp_path / "a.txt").read_bytes() == "σ × −\n\r\n".encode()
    write(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").read_bytes() == b""
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "new"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("before", [None, b"before"])
def test_what_stops_a_write_leaves_what_was_there(tmp_path, monkeypatch, call, error, before):
    def stop(*_):
        raise error("stopped")

    path = tmp_path / "a.bin"
    if before:
        path.write_bytes(before)
    monkeypatch.setattr(os, call, stop)
    with pytest.raises(error, match="stopped"):
        write(path, b"after")
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == (
        {"a.bin": before} if before else {}
    )


def test_the_disk_has_it_before_the_name_stands_for_it(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.fstat(file).st_size), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("renamed"), replace(a, b)))
    write(tmp_path / "a.bin", bytes(10_000))
    assert done == [10_000, "renamed"]


def test_a_file_that_windows_does_not_replace_may_hold_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("in use")

    path = tmp_path / "a.bin"
    path.write_bytes(b"same")
    monkeypatch.setattr(os, "replace", refuse)
    write(path, b"same")
    for other in (path, tmp_path / "b.bin"):
        with pytest.raises(PermissionError, match="in use"):
            write(other, b"other")
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a"):
        write(tmp_path / "a", b"")
    assert os.listdir(tmp_path) == ["a"]


def test_many_writers_of_one_file_leave_one_of_theirs(tmp_path):
    """Weights: a file that mixes two writers' would not load, or to no writer's numbers."""
    path, problems = tmp_path / "weights.pt", []
    models = [nn.Linear(50, 50) for _ in range(4)]

    def save(model):
        try:
            for _ in range(15):
                checkpoints.save(model, path)
        except BaseException as problem:
            problems.append(problem)

    writers = [threading.Thread(target=save, args=(model,)) for model in models]
    for writer in writers:
        writer.start()
    found = nn.Linear(50, 50)
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            checkpoints.load(found, path)
            assert any(torch.equal(found.weight, model.weight) for model in models)
    assert problems == []
    assert os.listdir(tmp_path) == ["weights.pt"]


@pytest.mark.parametrize("name", ["run.pt", "run[1].pt", "*", "a b"])
def test_what_a_killed_writer_leaves_is_known_by_its_name(tmp_path, name):
    # The module alone: the library would bring PyTorch.
    code = "import os, runpy, sys; os.fsync = os._exit; runpy.run_path(sys.argv[1])['write'](sys.argv[2], b'')"
    path = tmp_path / name
    for other in ("", ".bak"):
        command = [sys.executable, "-c", code, ROOT / "lstm_lib" / "files.py", f"{path}{other}"]
        assert subprocess.run(command).returncode > 2  # the number of an open file, and no error's
    assert len(os.listdir(tmp_path)) == 2
    (found,) = leftovers(path)
    (other,) = leftovers(f"{path}.bak")
    assert {found.name, other.name} == set(os.listdir(tmp_path))
    assert other.name.startswith(f".{name}.bak")
    assert leftovers(tmp_path / "nowhere" / name) == []


def test_there_is_one_way_to_write_whole_files():
    """No other module renames a draft, each in a way of its own."""
    code = [path for folder in ("lstm_lib", "tools", "book/_ext") for path in (ROOT / folder).rglob("*.py")]
    assert len(code) > 20
    assert [path.name for path in code if "os.replace(" in Path(path).read_text("utf-8")] == ["files.py"]

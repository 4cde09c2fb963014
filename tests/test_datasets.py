"""Data: three roads, checksums, cards, and what the files really hold.

The roads are tested with the real pip on an index of this test's own making, with a web server on this machine,
and with processes of their own. The real sets are then read a second time by other means and
compared with facts published elsewhere; that needs the package index once, and shares the user's cache.
"""

import collections
import csv
import gzip
import hashlib
import html.parser
import http.server
import io
import itertools
import json
import lzma
import os
import pathlib
import pickle
import re
import subprocess
import sys
import tarfile
import textwrap
import threading
import tomllib
import venv
import warnings
import zipfile
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_lib.book import datasets

CONTENT = bytes(range(256)) * 40  # what the test's own data sets hold
REAL = [
    "traffic",
    "spoken_digits",
    "mnist_5k",
    "shakespeare",
    "sp500",
    "movie_reviews",
    "chinese_reviews",
    "peoples_daily",
    "chicago_l",
    "smartwatch",
]
CARD = """
    [{name}]
    title = "Title of {name}"
    description = "A <description> & more"
    version = "1.0"
    licence = "none"
    split = "none"
    citation = "nobody"
    source = "https://example.org/"
    {origin}
    files = [{{path = {path}, sha256 = "{sha256}", size = {size}}}]
    fields = {{bytes = ["(10240,)", "uint8", "the file"]}}
    """


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def as_wheel(members):
    """A wheel of the package `tiny`, for a Python that is long gone: only its files matter here."""
    stream = io.BytesIO()
    info = "tiny-1.0.dist-info/"
    about = {
        info + "METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nRequires-Python: <3\n",
        info + "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        info + "RECORD": b"",
    }
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in (members | about).items():
            archive.writestr(name, data)
    return stream.getvalue()


def as_tar_gz(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers whole, cut (half of what it announces), short (half, nothing announced), or missing."""

    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.content
        if self.server.answer == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.server.answer != "short":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.server.answer == "whole" else content[: len(content) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer, server.content, server.asked = "whole", CONTENT, []
    server.url = f"http://127.0.0.1:{server.server_port}/pinned/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Shelf:
    """What surrounds the library: a registry, a cache, a mirror, and an index for pip."""

    def __init__(self, folder, monkeypatch):
        self.monkeypatch = monkeypatch
        self.registry, self.cache, self.mirror = folder / "cards.toml", folder / "cache", folder / "mirror"
        self.index = folder / "index"
        self.index.mkdir()
        for name in os.environ:
            if name.upper().startswith("PIP_") or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        for name, value in {
            "LSTM_LIB_CACHE": self.cache,
            "LSTM_LIB_MIRROR": "",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.index,
        }.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(datasets, "_REGISTRY", self.registry)

    def add(self, name, origin, path="data/tiny.bin", content=CONTENT):
        file = {"path": json.dumps(path), "sha256": sha256(content), "size": len(content)}
        with open(self.registry, "a") as out:
            out.write(textwrap.dedent(CARD.format(name=name, origin=origin, **file)))
        datasets._cards.cache_clear()

        def read(files):
            return {"bytes": np.frombuffer(files["tiny.bin"], np.uint8)}

        self.monkeypatch.setitem(datasets._READERS, name, read)

    def add_package(self, archive, data, digest=None, **card):
        (self.index / archive).write_bytes(data)
        package = f'name = "tiny", version = "1.0", archive = "{archive}", sha256 = "{digest or sha256(data)}"'
        self.add("tiny", f"package = {{{package}}}", **card)

    def add_wheel(self, members=None, **card):
        self.add_package("tiny-1.0-py3-none-any.whl", as_wheel(members or {"data/tiny.bin": CONTENT}), **card)

    def put_in_mirror(self, place, content=CONTENT):
        self.monkeypatch.setenv("LSTM_LIB_MIRROR", str(self.mirror))
        path = self.mirror / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def put_in_cache(self, place, content=CONTENT):
        path = self.cache / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def in_cache(self):
        """Every file of the cache, hidden ones too."""
        files = (path for path in self.cache.rglob("*") if path.is_file())
        return {path.relative_to(self.cache).as_posix(): path.read_bytes() for path in files}

    def start(self, first=""):
        """Load `tiny` in a process of its own, which runs `first` before."""
        script = f"""
            import os, pathlib, sys
            from lstm_lib.book import datasets
            datasets._REGISTRY = pathlib.Path({str(self.registry)!r})
            datasets._READERS["tiny"] = lambda files: files
            {first}
            sys.stdout.write(str(len(datasets.load("tiny")["tiny.bin"])))
            """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        pipes = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE)
        return subprocess.Popen(command, **pipes, text=True)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    yield Shelf(tmp_path, monkeypatch)
    datasets._cards.cache_clear()


def loaded(name):
    return datasets.load(name)["bytes"].tobytes()


# --- origins ---------------------------------------------------------------------------------------


def test_wheel(shelf, tmp_path, capfd):
    shelf.add_wheel({"data/tiny.bin": CONTENT, "../../escaped.txt": b"out"})
    assert loaded("tiny") == CONTENT
    assert shelf.in_cache() == {"tiny/tiny.bin": CONTENT}
    assert not list(tmp_path.rglob("escaped.txt"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("nested", [False, True])
def test_sdist_is_not_run(shelf, tmp_path, nested):
    """pip runs the setup.py of an sdist that it downloads; here it must not."""
    ran = tmp_path / "ran"
    setup = f"open({str(ran)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='tiny', version='1.0')\n"
    info = "Metadata-Version: 1.0\nName: tiny\nVersion: 1.0\n"
    about = {"tiny-1.0/setup.py": setup.encode(), "tiny-1.0/PKG-INFO": info.encode()}
    if nested:
        members = about | {"tiny-1.0/more/inner.tar.gz": as_tar_gz({"deep/tiny.bin": CONTENT})}
        path = ["tiny-1.0/more/inner.tar.gz", "deep/tiny.bin"]
    else:
        members, path = about | {"tiny-1.0/tiny.bin": CONTENT}, "tiny-1.0/tiny.bin"
    shelf.add_package("tiny-1.0.tar.gz", as_tar_gz(members), path=path)
    assert loaded("tiny") == CONTENT
    assert not ran.exists()
    assert shelf.in_cache() == {"tiny/tiny.bin": CONTENT}


def test_url(shelf, server, capfd):
    shelf.add("web", f'commit = "{server.url}"')
    assert loaded("web") == CONTENT
    assert server.asked == ["/pinned/data/tiny.bin"]
    assert shelf.in_cache() == {"web/tiny.bin": CONTENT}
    assert capfd.readouterr() == ("", "")


def test_archive_of_another_checksum(shelf):
    shelf.add_wheel(digest="0" * 64)
    with pytest.raises(datasets.DatasetError, match=r"(?s)tiny-1\.0-py3-none-any\.whl.*HASHES"):
        datasets.load("tiny")
    assert shelf.in_cache() == {}


def test_member_of_another_checksum(shelf):
    other = CONTENT[::-1]
    shelf.add_wheel({"data/tiny.bin": other})
    with pytest.raises(datasets.DatasetError, match=f"wrong checksum: 10,240 bytes with SHA-256 {sha256(other)}"):
        datasets.load("tiny")
    assert shelf.in_cache() == {}


@pytest.mark.parametrize("answer", ["cut", "short", "missing"])
def test_bad_download_is_an_error_and_leaves_nothing(shelf, server, answer):
    shelf.add("web", f'commit = "{server.url}"')
    server.answer = answer
    with pytest.raises(datasets.DatasetError, match=f"origin  {server.url}data/tiny.bin"):
        datasets.load("web")
    assert shelf.in_cache() == {}
    server.answer = "whole"
    assert loaded("web") == CONTENT


def check_ways_out(shelf, error, name, origin):
    """The message names the file, where it comes from, and two ways out that work when they are followed."""
    text = str(error.value)
    place = f"{name}/tiny.bin"
    assert f"needs tiny.bin (10,240 bytes, SHA-256 {sha256(CONTENT)})" in text
    for part in (origin, f"FOLDER/{place}", "LSTM_LIB_MIRROR=FOLDER", str(shelf.cache / place)):
        assert part in text
    assert f"datasets.load('{name}'); print(datasets.cache_folder())" in text
    assert isinstance(error.value, OSError)
    assert shelf.in_cache() == {}


def test_no_network(shelf, server):
    shelf.add_wheel()
    (shelf.index / "tiny-1.0-py3-none-any.whl").unlink()
    with pytest.raises(datasets.DatasetError) as error:
        datasets.load("tiny")
    assert type(error.value) is datasets.DatasetError  # the book needs a package index, and promises no more
    check_ways_out(shelf, error, "tiny", "data/tiny.bin in tiny-1.0-py3-none-any.whl (Python package index)")
    assert "No matching distribution" in str(error.value)

    server.shutdown()
    server.server_close()  # its port refuses from now on
    shelf.add("web", f'commit = "{server.url}"')
    with pytest.raises(datasets.DatasetUnreachable) as error:
        datasets.load("web")
    check_ways_out(shelf, error, "web", f"{server.url}data/tiny.bin")
    shelf.put_in_cache("web/tiny.bin")  # another machine's cache
    assert loaded("web") == CONTENT
    shelf.put_in_mirror("tiny/tiny.bin")
    assert loaded("tiny") == CONTENT


def test_no_pip(shelf, tmp_path, monkeypatch):
    shelf.add_wheel()
    builder = venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt")
    builder.create(tmp_path / "bare")
    monkeypatch.setattr(sys, "executable", builder.ensure_directories(tmp_path / "bare").env_exe)
    with pytest.raises(datasets.DatasetError) as error:
        datasets.load("tiny")
    check_ways_out(shelf, error, "tiny", "tiny-1.0-py3-none-any.whl")
    assert "No module named pip" in str(error.value)


# --- mirror and cache ------------------------------------------------------------------------------


def test_roads_in_order(shelf, server):
    shelf.add("web", f'commit = "{server.url}"')
    shelf.put_in_mirror("another/tiny.bin")  # a mirror that lacks the file: on to the origin
    assert loaded("web") == CONTENT
    assert len(server.asked) == 1
    shelf.put_in_mirror("web/tiny.bin", b"wrong, but not asked: the cache has the file")
    assert loaded("web") == CONTENT
    (shelf.cache / "web" / "tiny.bin").unlink()
    shelf.put_in_mirror("web/tiny.bin")
    assert loaded("web") == CONTENT
    assert len(server.asked) == 1
    assert shelf.in_cache() == {"web/tiny.bin": CONTENT}


def test_mirror_of_another_checksum(shelf, server):
    shelf.add("web", f'commit = "{server.url}"')
    shelf.put_in_mirror("web/tiny.bin", CONTENT[:-1])
    with pytest.raises(datasets.DatasetError) as error:
        datasets.load("web")
    check_ways_out(shelf, error, "web", str(shelf.mirror / "web" / "tiny.bin"))
    assert "wrong checksum: 10,239 bytes" in str(error.value)
    assert server.asked == []


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(end=st.integers(0, len(CONTENT)), at=st.integers(0, len(CONTENT) - 1), change=st.integers(0, 255))
def test_damaged_cache_is_fetched_anew(shelf, end, at, change):
    if not shelf.registry.exists():
        shelf.add("web", 'commit = "http://127.0.0.1:9/"')
        shelf.put_in_mirror("web/tiny.bin")
    damaged = bytearray(CONTENT)
    damaged[at] ^= change
    shelf.put_in_cache("web/tiny.bin", damaged[:end])
    assert loaded("web") == CONTENT
    assert shelf.in_cache() == {"web/tiny.bin": CONTENT}


def test_damaged_cache_without_another_road(shelf):
    shelf.add("web", 'commit = "http://127.0.0.1:9/"')
    shelf.put_in_cache("web/tiny.bin", CONTENT[:-1])
    with pytest.raises(datasets.DatasetError, match="damaged, removed") as error:
        datasets.load("web")
    check_ways_out(shelf, error, "web", "http://127.0.0.1:9/data/tiny.bin")


@pytest.mark.parametrize(("call", "raised"), [("fsync", KeyboardInterrupt), ("replace", OSError)])
def test_interrupted_write_leaves_nothing(shelf, monkeypatch, call, raised):
    shelf.add_wheel()

    def stop(*_):
        raise raised("stopped")

    told = (
        pytest.warns(UserWarning, match="stopped") if raised is OSError else pytest.raises(raised, match="stopped")
    )
    with monkeypatch.context() as patch, told:
        patch.setattr(os, call, stop)
        datasets.load("tiny")
    assert shelf.in_cache() == {}
    assert loaded("tiny") == CONTENT


def test_killed_while_writing(shelf):
    shelf.add_wheel()
    process = shelf.start("os.fsync = lambda _: os.kill(os.getpid(), 9)")
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode != 0
    assert "tiny/tiny.bin" not in shelf.in_cache()
    assert loaded("tiny") == CONTENT


def test_origin_with_a_cache_that_cannot_be_written(shelf, server):
    """The data are there, and one warning for all files says that each load fetches them again."""
    shelf.add("web", f'commit = "{server.url}"')
    entry = f'files = [{{path = "data/other.bin", sha256 = "{sha256(CONTENT)}", size = {len(CONTENT)}}}, '
    shelf.registry.write_text(shelf.registry.read_text().replace("files = [", entry))
    shelf.cache.write_text("a file where the folder should be")
    for fetched in (2, 4):
        with pytest.warns(UserWarning, match="^data set 'web' is fetched again each time") as told:
            assert loaded("web") == CONTENT
        assert len(server.asked) == fetched
        assert [warning.filename for warning in told] == [__file__]
        text = str(told[0].message)
        assert str(shelf.cache) in text
        assert text.endswith("set LSTM_LIB_CACHE to a folder that can be written")


def test_mirror_with_a_cache_that_cannot_be_written(shelf, server):
    shelf.add("web", f'commit = "{server.url}"')
    shelf.put_in_mirror("web/tiny.bin")
    shelf.cache.write_text("a file where the folder should be")
    with warnings.catch_warnings(action="error"):
        assert loaded("web") == CONTENT
    assert server.asked == []


def test_mirror_beside_a_cache_that_cannot_be_read(shelf):
    shelf.add("web", 'commit = "http://127.0.0.1:9/"')
    shelf.put_in_cache("web/tiny.bin/a file where a folder should not be")
    with pytest.raises(datasets.DatasetError, match=r"cache   .*tiny\.bin: \[Errno") as error:
        datasets.load("web")
    assert "origin  http://127.0.0.1:9/data/tiny.bin" in str(error.value)
    shelf.put_in_mirror("web/tiny.bin")
    with warnings.catch_warnings(action="error"):
        assert loaded("web") == CONTENT


def test_mirror_beside_a_damaged_cache_that_cannot_be_changed(shelf, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("read-only")

    shelf.add("web", 'commit = "http://127.0.0.1:9/"')
    shelf.put_in_cache("web/tiny.bin", CONTENT[:-1])
    shelf.put_in_mirror("web/tiny.bin")
    monkeypatch.setattr(pathlib.Path, "unlink", refuse)
    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    with warnings.catch_warnings(action="error"):
        assert loaded("web") == CONTENT
    assert shelf.in_cache() == {"web/tiny.bin": CONTENT[:-1]}


def test_processes_at_once(shelf):
    """Both find an empty cache, then both write: the write of each waits until both have fetched."""
    shelf.add_wheel()
    shelf.put_in_cache("tiny/tiny.bin", b"damaged")
    meet = (
        "write = datasets.write; "
        "datasets.write = lambda *args: (print('ready', flush=True), sys.stdin.readline(), write(*args))"
    )
    processes = [shelf.start(meet) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=60) == (str(len(CONTENT)), "")
    assert shelf.in_cache() == {"tiny/tiny.bin": CONTENT}


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LSTM_LIB_CACHE", raising=False)
    assert datasets.cache_folder().name in {"lstm_lib", "Cache"}
    assert datasets.cache_folder().is_absolute()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSTM_LIB_CACHE", "here")
    assert datasets.cache_folder() == tmp_path / "here"
    monkeypatch.setenv("LSTM_LIB_CACHE", os.path.join("~", "there"))
    assert datasets.cache_folder() == pathlib.Path.home() / "there"


# --- names and cards -------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [datasets.load, datasets.card])
def test_unknown_name(function):
    with pytest.raises(
        ValueError, match=r"^name must be one of traffic, .*, got 'trafic'; did you mean 'traffic'\?$"
    ):
        function("trafic")
    with pytest.raises(ValueError, match=r"^name must be one of traffic, .*, got 'zzz'$"):
        function("zzz")
    with pytest.raises(TypeError, match=r"^name must be one of traffic, .*, got 3$"):
        function(3)


def test_registry_and_readers_agree():
    assert set(REAL) < set(datasets.names()) == set(datasets._READERS)


@pytest.mark.parametrize("name", datasets.names())
def test_card_is_complete(name):
    card = datasets.card(name)
    entry = tomllib.loads(datasets._REGISTRY.read_text("utf-8"))[name]
    assert card.name == name
    for key in ("title", "description", "version", "licence", "split", "citation", "source"):
        assert getattr(card, key) == " ".join(entry[key].split()) != ""
    assert card.size == sum(file["size"] for file in entry["files"]) > 0
    paths = [file["path"] if isinstance(file["path"], list) else [file["path"]] for file in entry["files"]]
    digests = [file["sha256"] for file in entry["files"]]
    assert card.sha256 == {path[-1].rpartition("/")[2]: one for path, one in zip(paths, digests, strict=True)}
    assert (card.package is None) != (card.commit is None)
    assert all(member in card.origin for path in paths for member in path)
    if card.package:
        assert card.package.archive in card.origin
        assert f"{card.package.name}-{card.package.version}" in card.package.archive
        assert card.version == f"{card.package.name} {card.package.version}"
    else:
        assert card.version.removeprefix("commit ") in card.commit
    for digest in [*card.sha256.values(), *([card.package.sha256] if card.package else [])]:
        assert len(bytes.fromhex(digest)) == 32
    with pytest.raises(FrozenInstanceError):
        card.title = "other"
    with pytest.raises(TypeError):
        card.fields["more"] = ()


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced, and keeps text, attributes and tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.styles = [], collections.Counter(), "", set()
        self.heads_without_scope = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags[tag] += 1
        self.styles.add(dict(attrs).get("style", ""))
        self.heads_without_scope += tag == "th" and "scope" not in dict(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_card_as_a_page(shelf, server):
    shelf.add("web", f'commit = "{server.url}"')
    card = datasets.card("web")
    page = Page(card._repr_html_())
    for text in ("Title of web", "A <description> & more", card.origin, sha256(CONTENT), "uint8", "the file"):
        assert text in page.text
    assert page.tags["table"] == page.tags["caption"] == 2
    assert page.heads_without_scope == 0
    assert not any(word in style for style in page.styles for word in ("color", "background"))
    assert server.asked == []


@pytest.mark.parametrize("name", datasets.names())
def test_card_as_text(name):
    card = datasets.card(name)
    text = " ".join(str(card).split())
    for value in (card.title, card.description, card.licence, card.split, card.citation):
        assert value in text
    assert all(f"{file.size:,} bytes" in text for file in card.files)
    for key, field in card.fields.items():
        assert f"{[key]} {', '.join(field)}" in text
    assert max(map(len, str(card).splitlines())) <= 100
    assert Page(card._repr_html_()).text.count(card.description) == 1


def test_import_is_light():
    code = "import sys, lstm_lib.book.datasets; sys.exit(bool({'pooch', 'requests', 'pandas'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pickles_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    stream = io.BytesIO()
    labels = np.zeros(1, np.int64)
    np.savez(stream, X=np.array([Trap()], dtype=object), y=labels, lengths=labels + 1)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        datasets._spoken_digits({"digits.npz": stream.getvalue()})
    assert not (tmp_path / "ran").exists()


def as_npy(content, protocol=2):
    """One object as numpy.save writes it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    pickle.dump(content, stream, protocol)
    return stream.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_pickle_of_the_smartwatch_runs_nothing(tmp_path, protocol):
    class Trap:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "ran",)

    data = as_npy({"X": [Trap()]}, protocol)
    pickle.loads(data[128:])
    (tmp_path / "ran").unlink()  # so pickle does run it
    with pytest.raises(ValueError, match="not enough values to unpack"):
        datasets._smartwatch({"watch_dataset.npy": data})
    assert not (tmp_path / "ran").exists()


# --- what the sets hold ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_arrays_are_those_of_the_card(name):
    arrays = datasets.load(name)
    described = {key: field[:2] for key, field in datasets.card(name).fields.items()}
    assert {key: (str(array.shape), str(array.dtype)) for key, array in arrays.items()} == described
    assert all(array.flags.writeable for array in arrays.values())
    assert all(file.size == len(original(name, k)) for k, file in enumerate(datasets.card(name).files))


def original(name, k=0):
    """A file as the package has it; another road than the library's readers starts here."""
    file = datasets.card(name).files[k]
    return (datasets.cache_folder() / name / file.name).read_bytes()


def test_traffic():
    data = datasets.load("traffic")
    start = np.datetime64("2016-10-01T00", "h")
    np.testing.assert_array_equal(data["time"], start + np.arange(2 * 365 * 24))

    # The last five hours and the extremes, as the original at UCI has them.
    np.testing.assert_array_equal(data["volume"][-5:], [3543, 2781, 2159, 1450, 954])
    np.testing.assert_allclose(data["temperature"][-5:], [283.45, 282.76, 282.73, 282.09, 282.12], rtol=1e-6)
    np.testing.assert_array_equal(data["clouds"][-5:], [75, 90, 90, 90, 90])
    assert data["weather"][-5:].tolist() == ["Clouds", "Clouds", "Thunderstorm", "Clouds", "Clouds"]
    assert np.nanmax(data["volume"]) == 7280
    assert np.nanmax(data["temperature"]) == np.float32(310.07)

    # Every cell, by another reader.
    with zipfile.ZipFile(io.BytesIO(original("traffic"))) as archive, archive.open("traffic_hourly.zip") as lines:
        table = np.genfromtxt(lines, delimiter=",", names=True, dtype=None, encoding="utf-8")
    columns = {
        "volume": "traffic_volume",
        "temperature": "temp",
        "rain": "rain_1h",
        "snow": "snow_1h",
        "clouds": "clouds_all",
    }
    missing = table["weather_main"] == ""
    for key, column in columns.items():
        np.testing.assert_array_equal(np.isnan(data[key]), missing)
        np.testing.assert_allclose(data[key][~missing], table[column][~missing].astype(float), rtol=1e-6)
    np.testing.assert_array_equal(data["weather"], table["weather_main"])
    assert [text.replace(" ", "T")[:13] for text in table["datetime"]] == data["time"].astype(str).tolist()


def test_traffic_is_as_its_card_says():
    data = datasets.load("traffic")
    missing = np.isnan(data["volume"])
    assert missing.sum() == 104
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing, [0]])))
    lengths = edges[1::2] - edges[::2]
    assert (len(lengths), lengths.max()) == (67, 9)
    march = np.array(["2017-03-12T02", "2018-03-11T02"], dtype="datetime64[h]")  # clocks go forward
    assert missing[np.isin(data["time"], march)].all()
    assert np.nanmax(data["snow"]) == 0
    assert (data["weather"] == "Snow").sum() == 1221
    hour = data["time"].astype(int) % 24
    mean = [np.nanmean(data["volume"][hour == h]) for h in range(24)]
    assert np.argmin(mean) == 3  # asleep at three, driving home at four: local time
    assert np.argmax(mean) == 16


def test_spoken_digits():
    data = datasets.load("spoken_digits")
    with zipfile.ZipFile(io.BytesIO(original("spoken_digits"))) as archive:
        frames, lengths, labels = (
            np.lib.format.read_array(io.BytesIO(archive.read(f"{key}.npy")), allow_pickle=False)
            for key in ("X", "lengths", "y")
        )
    np.testing.assert_array_equal(data["labels"], labels)
    np.testing.assert_array_equal(data["lengths"], lengths)
    ends = np.cumsum(lengths)
    for features, length, end in zip(data["features"], lengths, ends, strict=True):
        np.testing.assert_array_equal(features[:length], frames[end - length : end])
        assert not features[length:].any()
    assert ends[-1] == len(frames)

    # 6 speakers, 50 recordings of each digit by each; no recording twice.
    np.testing.assert_array_equal(np.bincount(data["labels"]), [6 * 50] * 10)
    assert (lengths.min(), lengths.max()) == (6, 92)
    assert len({features.tobytes() for features in data["features"]}) == 3000
    assert np.abs(frames[:, [0, -1]].mean(0) - [-303, -12]).max() < 0.5
    assert np.abs(frames[:, [0, -1]].std(0) - [144, 13]).max() < 0.5
    assert np.isfinite(data["features"]).all()


def test_mnist_5k():
    data = datasets.load("mnist_5k")
    rows = [list(map(int, row)) for row in csv.reader(io.StringIO(gzip.decompress(original("mnist_5k")).decode()))]
    for row, image, label in zip(rows[::97], data["images"][::97], data["labels"][::97], strict=True):
        assert label == row[784]
        assert [[round(float(pixel) * 255, 3) for pixel in line] for line in image] == [
            row[28 * line : 28 * (line + 1)] for line in range(28)
        ]
    np.testing.assert_array_equal(data["labels"], np.repeat(np.arange(10), 500))
    assert (data["images"].min(), data["images"].max()) == (0, 1)
    assert len({image.tobytes() for image in data["images"]}) == 5000
    # All 60,000 training images have mean .1307 and standard deviation .3081.
    assert data["images"].mean() == pytest.approx(0.1307, rel=0.02)
    assert data["images"].std() == pytest.approx(0.3081, rel=0.02)


def test_shakespeare():
    """Every play is the tail of its file, up to spaces at line ends, and begins where its first act does."""
    data = datasets.load("shakespeare")
    text, starts = data["text"].tobytes().decode("ascii"), data["starts"]
    assert (starts[0], starts[-1]) == (0, len(text))
    files = datasets.card("shakespeare").files
    plays = [text[a:b] for a, b in itertools.pairwise(starts)]
    for k, (file, title, play) in enumerate(zip(files, data["titles"], plays, strict=True)):
        whole = original("shakespeare", k).decode("ascii")
        assert play.split() == whole[whole.index("\nACT ") :].split()
        assert play.startswith("ACT ")
        assert [line.rstrip() for line in whole.strip().splitlines()][-3:] == play.splitlines()[-3:]
        assert title == whole.partition("\n")[0]
        assert title.lower().replace("'", "").split()[-1] in file.name or "_" in file.name


def test_shakespeare_is_as_its_card_says():
    data = datasets.load("shakespeare")
    text = data["text"].tobytes().decode("ascii")
    for word in ("gutenberg", "copyright", "etext", "license", "persons represented", "dramatis personae"):
        assert word not in text.lower()
    assert " \n" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert sum(line.isupper() and line.endswith(".") and len(line) < 30 for line in lines) > 6_000  # speakers
    assert sum(line.startswith("[") for line in lines) > 900  # stage directions
    assert [line for line in lines if line.startswith("To be, or not to be, that")] == []  # not Hamlet
    assert "Is this a dagger which I see before me," in lines  # Macbeth


def test_sp500():
    data = datasets.load("sp500")
    text = gzip.decompress(original("sp500")).decode()

    # Every cell, by another reader.
    table = np.genfromtxt(io.StringIO(text), delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert list(table.dtype.names) == ["Date", *data["ticker"].tolist()]
    assert table["Date"].tolist() == data["date"].astype(str).tolist()
    for ticker, price in zip(data["ticker"], data["price"].T, strict=True):
        np.testing.assert_array_equal(price, table[ticker])

    # The first rows as the package's documentation prints them.
    assert data["price"][0, :4].tolist() == [0.264, 4.125, 4.599, 0.144]
    assert data["price"][4, -4:].tolist() == [3.322, 0.282, 3.644, 4.027]

    # Days that everybody knows: Merck withdrew Vioxx (−26.8 %), Apple warned of its quarter (−51.9 %).
    change = data["price"][1:] / data["price"][:-1] - 1
    for day, ticker, known in (("2004-09-30", "MRK", -0.268), ("2000-09-29", "AAPL", -0.519)):
        row, column = data["date"][1:] == np.datetime64(day), data["ticker"] == ticker
        assert change[row, column].item() == pytest.approx(known, abs=0.002)


def test_sp500_is_as_its_card_says():
    data = datasets.load("sp500")
    date, price, ticker = data["date"], data["price"], data["ticker"]
    assert (str(date[0]), str(date[-1])) == ("1990-01-02", "2022-12-28")
    assert np.isfinite(price).all()
    assert (price > 0).all()
    assert ticker.tolist() == sorted(set(ticker.tolist()))
    gap = np.diff(date).astype(int)
    assert gap.min() == 1
    assert dict(zip(date[:-1][gap > 4].astype(str), gap[gap > 4].tolist(), strict=True)) == {
        "2001-09-10": 7,
        "2006-12-29": 5,
        "2012-10-26": 5,
    }
    weekday = (date.astype(int) + 3) % 7
    assert weekday.max() == 4  # Monday to Friday
    _, days_of_year = np.unique(date.astype("datetime64[Y]"), return_counts=True)
    assert (days_of_year.min(), days_of_year.max()) == (248, 254)  # 2001, and 1992
    np.testing.assert_array_equal(np.round(price, 3), price)

    def step(year):  # the largest step of a thousandth, in per cent of the price
        part = price[date.astype("datetime64[Y]") == np.datetime64(year)]
        return dict(zip(ticker.tolist(), (0.1 / part.min(0)).round(1).tolist(), strict=True))

    assert (step("1990")["BBY"], step("1990")["AAPL"], step("2003")["AAPL"]) == (0.9, 0.6, 0.5)
    before_2000 = price[date < np.datetime64("2000")][:, ticker == "RRC"]
    assert 0.33 < (np.diff(before_2000, axis=0) == 0).mean() < 0.40


def test_movie_reviews():
    data = datasets.load("movie_reviews")

    # Every row, by another reader.
    lines = csv.reader(original("movie_reviews").decode().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    for (number, score, text), k in zip(lines, itertools.count(), strict=False):
        assert (int(number), float(score), text) == (k + 1, data["score"][k], data["text"][k])
    assert k + 1 == len(data["text"])

    # Ratings are means of 15 to 29 whole numbers from −4 to 4; the words of the tone agree with them.
    assert np.abs(data["score"]).max() < 4
    sums = data["score"][:, None] * np.arange(15, 30)
    assert (np.abs(sums - sums.round()).min(1) < 1e-8).all()
    assert not (np.abs(sums - sums.round())[:, 5:].min(1) < 1e-8).all()
    lower = np.char.lower(data["text"])
    for word, sign in (("wonderful", 1), ("moving", 1), ("dull", -1), ("mess", -1)):
        found = data["score"][np.char.find(lower, word) >= 0]
        assert len(found) > 40
        assert sign * found.mean() > 0.5


def test_movie_reviews_are_as_their_card_says():
    data = datasets.load("movie_reviews")
    text, score = data["text"].tolist(), data["score"]
    assert ((score > 0).sum(), (score < 0).sum(), (score == 0).sum()) == (5242, 5326, 37)
    assert (abs(score) > 0.3).sum() == 10_311
    lengths, words = [len(t) for t in text], [len(t.split()) for t in text]
    assert (min(lengths), max(lengths)) == (3, 257)
    assert (min(words), max(words), np.median(words)) == (1, 51, 18)
    assert len(text) - len(set(text)) == 2
    assert all(t == t.strip() and len(t.splitlines()) == 1 and "-" not in t for t in text)
    assert sum('"' in t for t in text) == 1
    assert text[0].startswith("The Rock is destined to be the 21st Century's new ''Conan''")


def chinese_reviews():
    """The reviews as text, and whether each is positive."""
    data = datasets.load("chinese_reviews")
    text, starts = data["text"].tobytes(), data["starts"]
    return [text[a:b].decode("utf-8") for a, b in itertools.pairwise(starts)], data["positive"]


def test_chinese_reviews():
    reviews, positive = chinese_reviews()

    # Every line, by another reader: only blank lines and spaces at the ends are gone.
    files = datasets.card("chinese_reviews").files
    lines = []
    for k, file in enumerate(files):
        with io.TextIOWrapper(io.BytesIO(original("chinese_reviews", k)), encoding="utf-8", newline="\n") as whole:
            lines += [(line.strip(), file.name == "pos.txt") for line in whole]
    assert [line for line in lines if line[0]] == list(zip(reviews, positive.tolist(), strict=True))

    # The words of the tone agree with the files: very good, like; disappointed, rubbish.
    for word, least, most in (("很好", 0.75, 1), ("喜欢", 0.6, 1), ("失望", 0, 0.25), ("垃圾", 0, 0.25)):
        found = positive[[word in review for review in reviews]]
        assert len(found) > 200
        assert least < found.mean() < most


def test_chinese_reviews_are_as_their_card_says():
    reviews, positive = chinese_reviews()
    assert (len(reviews), positive.sum(), (~positive).sum()) == (35_123, 16_548, 18_575)
    assert not positive[:18_575].any()
    copies = collections.Counter(reviews)
    assert (len(copies), sum(n == 1 for n in copies.values())) == (17_410, 2786)
    assert copies.most_common(1)[0][1] == 50
    assert len(set(reviews[:18_575]) & set(reviews[18_575:])) == 47
    lengths = sorted(map(len, reviews))
    assert (lengths[0], lengths[-1], lengths[len(lengths) // 2]) == (1, 2876, 48)
    characters = "".join(reviews)
    assert sum("\u4e00" <= c <= "\u9fff" for c in characters) / len(characters) == pytest.approx(0.85, abs=0.005)
    assert sum("酒店" in review for review in reviews) > 6000  # hotel


def names_in(text, label):
    """(start, end, kind) of each name, read off the labels alone."""
    begins = np.flatnonzero(np.char.startswith(label, "B"))
    inside = np.append(np.char.startswith(label, "I"), False)
    return [(k, k + 1 + int(np.argmin(inside[k + 1 :][:200])), str(label[k])[2:]) for k in begins]


def test_peoples_daily():
    data = datasets.load("peoples_daily")
    text, label = "".join(data["text"]), data["label"]

    # The text is that of the file without tags and spaces; places and organizations are its words, one by one.
    raw = original("peoples_daily").decode()
    assert text == re.sub(r"/[A-Za-z]+|\s", "", raw)
    found = names_in(text, label)
    for kind, tag in (("LOC", "ns"), ("ORG", "nt")):
        wanted = re.findall(rf"(\S+)/{tag}(?=\s)", raw)
        assert [text[a:b] for a, b, name in found if name == kind] == wanted

    # Persons cover the words tagged nr, and a family name is joined with its given name and with no more.
    persons = [text[a:b] for a, b, name in found if name == "PER"]
    assert "".join(persons) == "".join(re.findall(r"(\S+)/nr(?=\s)", raw))
    for name, count in {
        "江泽民": 446,
        "李鹏": 216,
        "邓小平": 158,
        "克林顿": 147,
        "欧阳山尊": 3,
        "柴可夫斯基": 4,
    }.items():
        assert persons.count(name) == count, name
    assert "江" in persons  # a family name on its own: President Jiang
    row = text.index("江泽民李鹏乔石朱镕基李瑞环刘华清")
    inside = [text[a:b] for a, b, _ in found if row <= a < row + 16]
    assert inside == ["江泽民", "李鹏", "乔石", "朱镕基", "李瑞环", "刘华清"]

    # An inner label goes on with the kind before it, never across a sentence's end.
    kinds = np.array([x[2:] for x in label.tolist()])
    on = np.char.startswith(label, "I")
    assert (kinds[1:][on[1:]] == kinds[:-1][on[1:]]).all()
    assert not on[data["starts"][:-1]].any()


def test_peoples_daily_is_as_its_card_says():
    data = datasets.load("peoples_daily")
    text, starts, paragraph = "".join(data["text"]), data["starts"], data["paragraph"]
    assert (starts[0], starts[-1]) == (0, len(text))
    sentences = [text[a:b] for a, b in itertools.pairwise(starts)]
    assert min(map(len, sentences)) > 0
    assert not re.search(r"[0-9A-Za-z]", text)
    raw = original("peoples_daily").decode()
    assert paragraph.max() + 1 == sum(bool(line.strip()) for line in raw.splitlines())
    assert set(np.diff(paragraph).tolist()) == {0, 1}
    same = paragraph[1:] == paragraph[:-1]  # within a paragraph, a sentence ends as a sentence does
    assert all(re.search("[。！？][”’）》]*$", x) for x, goes_on in zip(sentences, same, strict=False) if goes_on)
    assert not any(re.search("[。！？][^”’）》。！？]", x) for x in sentences)
    # Datelines go through January in order.
    days = re.findall("新华社北京１月([０-９]+)日电", text)
    numbers = np.array([int(day) for day in days])
    assert len(numbers) > 200
    assert np.corrcoef(numbers, np.arange(len(numbers)))[0, 1] > 0.98


def test_chicago_l():
    data = datasets.load("chicago_l")
    riders, station = data["riders"], data["station"].tolist()

    # The first two rows as the documentation of R's modeldata prints them, for the day two weeks later.
    assert str(data["date"][0]) == "2001-01-08"
    assert station[:4] == ["Austin", "Quincy_Wells", "Belmont", "Archer_35th"]
    assert np.round(riders[:2, :4], 2).tolist() == [[1.46, 8.37, 4.6, 2.01], [1.5, 8.35, 4.72, 2.09]]

    # Another column of the same file holds the riders of Clark_Lake at the day of its row. Found by their bytes.
    raw = lzma.decompress(original("chicago_l"))
    clark = station.index("Clark_Lake")
    start = raw.index(riders[:, clark].tobytes())
    target = np.frombuffer(raw, count=len(riders), offset=start - (clark + 1) * riders[:, 0].nbytes)
    np.testing.assert_array_equal(target[:-14], riders[14:, clark])

    # Days that everybody knows: fewer ride at Christmas and on Sundays.
    days = data["date"].astype(str)
    christmas = np.char.endswith(days, "12-25")
    assert christmas.sum() == 15
    assert riders[christmas].mean() < 0.45 * riders.mean()
    weekday = (data["date"].astype(int) + 3) % 7
    assert (riders[weekday == 6].mean(0) < 0.7 * riders[weekday < 5].mean(0)).all()


def test_chicago_l_is_as_its_card_says():
    data = datasets.load("chicago_l")
    date, riders, station = data["date"], data["riders"], data["station"].tolist()
    assert (str(date[0]), str(date[-1]), len(date)) == ("2001-01-08", "2016-08-14", 5698)
    assert (np.diff(date).astype(int) == 1).all()
    assert np.isfinite(riders).all()
    assert riders.min() == 0
    assert len(set(station)) == riders.shape[1] == 20
    zeros = dict(zip(station, (riders == 0).sum(0).tolist(), strict=True))
    assert (zeros["Polk"], zeros["Quincy_Wells"], zeros["Washington_Wells"]) == (135, 23, 22)


def test_smartwatch():
    """The reader finds what numpy and pickle have written, in the release's form."""
    dice = np.random.default_rng(0)
    recordings = [dice.normal(size=(length, 6)) for length in (30, 25, *range(40, 178))]
    exercise, person = dice.integers(0, 7, 140), dice.integers(1, 11, 140)
    side = dice.integers(0, 2, 140).astype(float)
    names, channels = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"], ["ax", "ay", "az", "wx", "wy", "wz"]
    content = {
        "X": np.array([np.asfortranarray(recording) for recording in recordings], dtype=object),
        "y_labels": np.array(names, dtype=object),
        "y": exercise,
        "subject": person,
        "side": side,
        "X_labels": np.array(channels, dtype=object),
    }
    got = datasets._smartwatch({"watch_dataset.npy": as_npy(content)})
    assert got["signal"].flags.c_contiguous  # or else tensors of it have no view(-1)
    np.testing.assert_array_equal(got["signal"], np.float32(np.concatenate(recordings)))
    np.testing.assert_array_equal(np.diff(got["starts"]), [len(recording) for recording in recordings])
    np.testing.assert_array_equal(got["exercise"], exercise)
    np.testing.assert_array_equal(got["person"], person)
    np.testing.assert_array_equal(got["right"], side == 1)
    assert (got["names"].tolist(), got["channels"].tolist()) == (names, channels)


def test_smartwatch_is_as_its_card_says():
    data = datasets.load("smartwatch")
    signal, starts = data["signal"], data["starts"]
    each = set(zip(data["person"].tolist(), data["exercise"].tolist(), data["right"].tolist(), strict=True))
    assert each == set(itertools.product(range(1, 11), range(7), (False, True)))
    samples = np.diff(starts)
    assert (samples.min(), samples.max(), round(len(signal) / 50 / 60)) == (947, 2618, 81)
    assert (round(947 / 50), round(2618 / 50)) == (19, 52)
    recordings = [signal[a:b] for a, b in itertools.pairwise(starts)]
    assert len({recording.tobytes() for recording in recordings}) == 140
    assert np.isfinite(signal).all()

    # In PEN and TRAP the arm hangs: gravity lies along ax, with one sign for each arm.
    hang = np.isin(data["exercise"], (0, 5))
    ax = np.array([recording[:, 0].mean() for recording in recordings])
    assert (np.abs(ax[hang & data["right"]] + 1) < 0.35).all()
    assert (np.abs(ax[hang & ~data["right"]] - 1) < 0.35).all()
    length = [np.median(np.linalg.norm(recordings[k][:, :3], axis=1)) for k in np.flatnonzero(hang)]
    assert abs(np.median(length) - 1) < 0.1

    # Gravity stays where it is while the watch turns: da/dt = a × ω. Carried on so for 0.6 s it comes nearest to
    # what is then measured with the signs that ω has, and in radians; so the axes are those of a right hand.
    for side, name in itertools.product((False, True), ("ABD", "FEL")):
        which = np.flatnonzero((data["right"] == side) & (data["names"][data["exercise"]] == name))
        starts_at = [recordings[k][first : first + 31].astype(float) for k in which for first in range(0, 900, 30)]
        pieces = np.array(starts_at)  # (pieces, 31, 6)
        off = {}
        for signs in itertools.product((1, -1), repeat=3):
            for unit in (1, np.pi / 180):
                a = pieces[:, 0, :3]
                for t in range(30):
                    a = a + np.cross(a, unit * np.array(signs) * pieces[:, t, 3:]) / 50
                cosine = (a * pieces[:, -1, :3]).sum(1) / np.linalg.norm(a, axis=1)
                off[signs, unit] = np.median(cosine / np.linalg.norm(pieces[:, -1, :3], axis=1))
        assert max(off, key=off.get) == ((1, 1, 1), 1)


def test_chickenpox(shelf, server):
    """The real reader, from a small file of the same form."""
    change = np.random.default_rng(0).normal(size=(7, 3))
    edges = [[0, 0], [0, 2], [2, 0], [1, 1], [2, 2]]
    content = {"edges": edges, "node_ids": {"B": 1, "C": 2, "A": 0}, "FX": change.tolist()}
    server.content = json.dumps(content).encode()
    read = datasets._READERS["chickenpox"]
    shelf.add("chickenpox", f'commit = "{server.url}"', path="dataset/chickenpox.json", content=server.content)
    shelf.monkeypatch.setitem(datasets._READERS, "chickenpox", read)
    data = datasets.load("chickenpox")
    np.testing.assert_allclose(data["change"], change, rtol=1e-6)
    np.testing.assert_array_equal(data["edges"], edges)
    assert data["counties"].tolist() == ["A", "B", "C"]
    assert [str(array.dtype) for array in data.values()] == ["float32", "int64", "<U1"]
    assert shelf.in_cache() == {"chickenpox/chickenpox.json": server.content}


def test_multi30k(shelf, server):
    """The real reader, from a small file of the same form."""
    server.content = gzip.compress("Ein Hund läuft. \nZwei\xa0Männer  am Strand\n".encode(), mtime=0)
    read, path = datasets._READERS["multi30k"], "data/task1/raw/test_2016_flickr.de.gz"
    shelf.add("multi30k", f'commit = "{server.url}"', path=path, content=server.content)
    shelf.monkeypatch.setitem(datasets._READERS, "multi30k", read)
    data = datasets.load("multi30k")
    assert {name: texts.tolist() for name, texts in data.items()} == {
        "test_de": ["Ein Hund läuft.", "Zwei Männer am Strand"]
    }
    assert str(data["test_de"].dtype) == "<U21"
    assert shelf.in_cache() == {"multi30k/test_2016_flickr.de.gz": server.content}


def test_wnut17(shelf, server):
    """The real reader, from a small file of the same form: a tab alone ends a text, and so does the file."""
    server.content = "\t\nIn\tO\nNew\tB-location\nYork\tI-location\n\t\n\n\u00a0\tO\n☕\tB-product".encode()
    read = datasets._READERS["wnut17"]
    shelf.add("wnut17", f'commit = "{server.url}"', path="emerging.test.annotated", content=server.content)
    shelf.monkeypatch.setitem(datasets._READERS, "wnut17", read)
    data = datasets.load("wnut17")
    assert data["test_word"].tolist() == ["In", "New", "York", "\u00a0", "☕"]
    assert data["test_tag"].tolist() == ["O", "B-location", "I-location", "O", "B-product"]
    assert data["test_starts"].tolist() == [0, 3, 5]
    assert [str(array.dtype) for array in data.values()] == ["<U4", "<U10", "int64"]
    assert shelf.in_cache() == {"wnut17/emerging.test.annotated": server.content}

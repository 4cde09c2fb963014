"""Real data for the chapters: what it is, where it comes from, and how it is checked.

A file is taken by the first of three roads that has it: the cache; a mirror folder named by the environment
variable ``LSTM_LIB_MIRROR``; its origin, which is a file inside a released Python package or a file of a pinned
commit. Whatever the road, its SHA-256 is compared before anything reads it, and the bytes that were checked are
those that are read. ``LSTM_LIB_CACHE`` names another cache folder. Cache and mirror keep a file as
``<data set>/<file>``, so the cache of one machine is a mirror for another.

A new data set is a card in ``datasets.toml`` and a reader at the end of this module.
"""

from __future__ import annotations

import csv
import difflib
import functools
import gzip
import hashlib
import html
import io
import json
import lzma
import os
import pickletools
import re
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np

from lstm_lib.files import write

__all__ = [
    "Card",
    "DatasetError",
    "DatasetUnreachable",
    "File",
    "Package",
    "cache_folder",
    "card",
    "load",
    "names",
]

_REGISTRY = Path(__file__).with_suffix(".toml")


class DatasetError(OSError):
    """No road gives a data file as it should be; the message says which file, from where, and what to do."""


class DatasetUnreachable(DatasetError):
    """The website of the file's pinned commit does not answer here; a package index would not do."""


# --- cards ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Package:
    """A release of a Python package that carries data files; the SHA-256 is its archive's, a wheel or an sdist."""

    name: str
    version: str
    archive: str
    sha256: str


@dataclass(frozen=True)
class File:
    """A data file: the way to it from its origin, its SHA-256, and its size in bytes."""

    path: tuple[str, ...]
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Its name in the cache and in a mirror."""
        return PurePosixPath(self.path[-1]).name

    def matches(self, data: bytes) -> bool:
        """Whether these bytes are the file."""
        return hashlib.sha256(data).hexdigest() == self.sha256


@dataclass(frozen=True, repr=False)
class Card:
    """What a data set is, where it comes from, and on which terms; a notebook shows it as a table.

    Attributes
    ----------
    name, title, description : str
        Its name for `load`, its title, and what it holds, gaps and oddities included.
    version, licence, split, citation, source : str
        The release or commit; terms of use; how it is split; whom to cite; where to read more.
    files : tuple of File
        The files that it is read from.
    fields : mapping
        For each array that `load` returns: shape, dtype, and meaning with its unit.
    package : Package or None
        The release that carries the files, or else
    commit : str or None
        the address of the pinned commit that holds them.
    """

    name: str
    title: str
    description: str
    version: str
    licence: str
    split: str
    citation: str
    source: str
    files: tuple[File, ...]
    fields: Mapping[str, tuple[str, str, str]]
    package: Package | None = None
    commit: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> dict[str, str]:
        """SHA-256 of each file, by name."""
        return {file.name: file.sha256 for file in self.files}

    @property
    def origin(self) -> str:
        """Where each file comes from."""
        return "; ".join(_origin_of(self, file) for file in self.files)

    def _rows(self) -> dict[str, str]:
        files = "; ".join(f"{file.name}, {file.size:,} bytes, SHA-256 {file.sha256}" for file in self.files)
        return {
            "Description": self.description,
            "Split": self.split,
            "Licence": self.licence,
            "Version": self.version,
            "Origin": self.origin,
            "Files": files,
            "Citation": self.citation,
            "Source": self.source,
        }

    def __repr__(self) -> str:
        rows = self._rows() | {f"[{name!r}]": ", ".join(field) for name, field in self.fields.items()}
        width = max(map(len, rows)) + 2
        fill = textwrap.TextWrapper(100, subsequent_indent=" " * width, break_on_hyphens=False)
        return "\n".join([f"{self.title}: {self.name}", *(fill.fill(f"{k:{width}}{v}") for k, v in rows.items())])

    def _repr_html_(self) -> str:
        about = {name: html.escape(text) for name, text in self._rows().items()}
        about["Source"] = f'<a href="{about["Source"]}">{about["Source"]}</a>'
        fields = (
            (f"<code>{name}</code>", f"{html.escape(dtype)} {shape}", html.escape(meaning))
            for name, (shape, dtype, meaning) in self.fields.items()
        )
        return _table(f"{html.escape(self.title)}: <code>{self.name}</code>", (), about.items()) + _table(
            f'What <code>load("{self.name}")</code> returns', ("array", "type, shape", "meaning"), fields
        )


def _table(caption: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    # `dataframe` is the class that pages style for light and dark; they would set the cells to the right.
    style = "text-align: left; vertical-align: top; padding: 0.2em 0.5em"
    body = ""
    for first, *middle, last in rows:
        body += f'<tr><th scope="row" style="{style}">{first}</th>'
        body += "".join(f'<td style="{style}">{cell}</td>' for cell in middle)
        body += f'<td style="{style}; overflow-wrap: anywhere">{last}</td></tr>'
    top = "".join(f'<th scope="col" style="{style}">{cell}</th>' for cell in head)
    thead = f"<thead><tr>{top}</tr></thead>" if top else ""
    return f'<table class="dataframe"><caption>{caption}</caption>{thead}<tbody>{body}</tbody></table>'


@functools.cache
def _cards() -> dict[str, Card]:
    return {name: _parse(name, entry) for name, entry in tomllib.loads(_REGISTRY.read_text("utf-8")).items()}


def _parse(name: str, entry: dict[str, Any]) -> Card:
    entry = {key: " ".join(value.split()) if isinstance(value, str) else value for key, value in entry.items()}
    for file in entry["files"]:
        file["path"] = (file["path"],) if isinstance(file["path"], str) else tuple(file["path"])
    entry["files"] = tuple(File(**file) for file in entry["files"])
    entry["fields"] = MappingProxyType({key: tuple(field) for key, field in entry["fields"].items()})
    if "package" in entry:
        entry["package"] = Package(**entry["package"])
    return Card(name=name, **entry)


def names() -> tuple[str, ...]:
    """Names of all data sets.

    >>> "traffic" in names()
    True
    """
    return tuple(_cards())


def card(name: str) -> Card:
    """What a data set is, where it comes from, and on which terms. Asks nothing of the network.

    Parameters
    ----------
    name : str
        One of `names`.

    Raises
    ------
    ValueError
        If there is no such data set.

    Examples
    --------
    >>> card("traffic").size
    158529
    >>> card("traffic").fields["volume"]
    ('(17520,)', 'float32', 'vehicles in the hour; NaN where not recorded (104)')
    """
    need = f"name must be one of {', '.join(names())}, got {name!r}"
    if not isinstance(name, str):
        raise TypeError(need)
    if name not in _cards():
        near = difflib.get_close_matches(name, names(), n=1)
        raise ValueError(need + (f"; did you mean {near[0]!r}?" if near else ""))
    return _cards()[name]


# --- load -----------------------------------------------------------------------------------------


def load(name: str) -> dict[str, np.ndarray]:
    """Arrays of a data set, fetched once and checked each time.

    Parameters
    ----------
    name : str
        One of `names`. `card` tells what each array holds, its shape and its unit.

    Returns
    -------
    dict of str to numpy.ndarray
        The arrays: numbers, times or fixed-width text, never objects. They are the caller's to change.

    Raises
    ------
    ValueError
        If there is no such data set.
    DatasetError
        If a file is in neither cache nor mirror and its origin cannot be reached, or if mirror or origin give one
        of another SHA-256. A damaged file in the cache is fetched anew.

    Warns
    -----
    UserWarning
        If files come from their origin and the cache cannot be written: each load will fetch them again.
    """
    this = card(name)
    origin = _origin(this)
    fetched = {file.name: _fetch(this, file, origin) for file in this.files}
    if problem := next((problem for _, problem in fetched.values() if problem), None):
        way_out = "set LSTM_LIB_CACHE to a folder that can be written"
        warnings.warn(f"data set {name!r} is fetched again each time ({problem}); {way_out}", stacklevel=2)
    return _READERS[name]({file: data for file, (data, _) in fetched.items()})


def cache_folder() -> Path:
    """The folder that keeps fetched files: ``LSTM_LIB_CACHE``, else the user's cache folder of this machine."""
    if folder := os.environ.get("LSTM_LIB_CACHE"):
        return Path(folder).expanduser().absolute()
    return Path(_pooch().os_cache("lstm_lib"))


def _fetch(card: Card, file: File, origin: Callable[[File], bytes]) -> tuple[bytes, OSError | None]:
    """The file's bytes by the first road that has it, cache, mirror, origin; and why the origin's are not kept."""
    place = Path(card.name, file.name)
    cached = cache_folder() / place
    mirror = os.environ.get("LSTM_LIB_MIRROR")
    mirrored = Path(mirror).expanduser().absolute() / place if mirror else None
    tried = []
    try:
        data = _bytes_at(cached)
        if data is not None and file.matches(data):
            return data, None
        if data is not None:
            cached.unlink(missing_ok=True)
        tried.append(f"cache   {cached}: {'not there' if data is None else 'damaged, removed'}")
    except OSError as error:  # it cannot be read, or a damaged file cannot be removed: the other roads are left
        tried.append(f"cache   {cached}: {error}")
    try:
        data = _bytes_at(mirrored) if mirrored else None
        if from_origin := data is None:
            tried.append(f"mirror  {mirrored}: not there" if mirrored else "mirror  LSTM_LIB_MIRROR is not set")
            tried.append(f"origin  {_origin_of(card, file)}:")
            data = origin(file)
        else:
            tried.append(f"mirror  {mirrored}:")
        if not file.matches(data):
            got = hashlib.sha256(data).hexdigest()
            raise OSError(f"wrong checksum: {len(data):,} bytes with SHA-256 {got}")
    except OSError as error:
        tried.append(textwrap.indent(str(error), " " * 8))
        kind = DatasetUnreachable if isinstance(error, ConnectionError) else DatasetError
        raise kind(_ways_out(card, file, cached, tried)) from error
    try:
        write(cached, data)
    except OSError as error:  # a mirror does as well as a cache
        return data, error if from_origin else None
    return data, None


def _bytes_at(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _ways_out(card: Card, file: File, cached: Path, tried: list[str]) -> str:
    ask = f"from lstm_lib.book import datasets; datasets.load('{card.name}'); print(datasets.cache_folder())"
    roads = textwrap.indent("\n".join(tried), "  ")
    return f"""data set {card.name!r} needs {file.name} ({file.size:,} bytes, SHA-256 {file.sha256}).
Tried:
{roads}
Two ways out:
  A mirror: put the file at FOLDER/{card.name}/{file.name} and set LSTM_LIB_MIRROR=FOLDER.
  Another machine's cache: run there
        python -c "{ask}"
  and copy {card.name}/{file.name} from the folder that it prints to
        {cached}"""


# --- origins ---------------------------------------------------------------------------------------


def _origin_of(card: Card, file: File) -> str:
    if card.package:
        return f"{' in '.join(reversed(file.path))} in {card.package.archive} (Python package index)"
    return f"{card.commit}{file.path[0]}"


def _origin(card: Card) -> Callable[[File], bytes]:
    """What gives the bytes of a file from its origin; a package is downloaded at most once."""
    if not card.package:
        return lambda file: _download(f"{card.commit}{file.path[0]}")
    archive = functools.cache(lambda: _download_package(card.package))
    return lambda file: _extract(card.package.archive, archive(), file.path)


def _download(url: str) -> bytes:
    pooch, stream = _pooch(), io.BytesIO()
    import requests  # which pooch downloads with

    try:
        pooch.HTTPDownloader(timeout=30)(url, stream, None)
    except (requests.ConnectionError, requests.Timeout) as error:  # neither is one of Python's ConnectionErrors
        raise ConnectionError(str(error)) from error
    return stream.getvalue()


def _pooch():
    """pooch, imported late, as it is slow to load, and without its warning where notebook widgets are missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pooch
    return pooch


def _download_package(package: Package) -> bytes:
    """The archive of a package, which pip fetches as it is set up to and checks, but neither installs nor runs."""
    wheel = package.archive.endswith(".whl")
    with tempfile.TemporaryDirectory(prefix="lstm_lib-") as folder:
        requirement = f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n"
        Path(folder, "requirements.txt").write_text(requirement, "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--retries=2", "--no-deps"]
        command += ["--require-hashes", "--ignore-requires-python", "--requirement=requirements.txt", "--dest=."]
        command += ["--only-binary=:all:"] if wheel else ["--no-binary=:all:", "--no-build-isolation"]
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | ({} if wheel else _no_build(package, Path(folder, "backend"))),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
            told = "\n".join(lines[-8:])
            raise OSError(f"pip could not download it (no network, or an index that lacks it?):\n{told}")
        return Path(folder, package.archive).read_bytes()


def _no_build(package: Package, folder: Path) -> dict[str, str]:
    """Environment in which pip downloads an sdist and runs none of its code.

    pip asks the build backend of every sdist that it downloads for metadata, which would run its ``setup.py``.
    This puts a backend in setuptools' place that builds nothing and answers with the name and version asked for.
    """
    backend = folder / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    source = f"""
        import pathlib, sys

        def prepare_metadata_for_build_wheel(folder, config_settings=None):
            info = pathlib.Path(folder, "{package.name}-{package.version}.dist-info")
            info.mkdir()
            text = "Metadata-Version: 2.1\\nName: {package.name}\\nVersion: {package.version}\\n"
            (info / "METADATA").write_text(text)
            return info.name

        __legacy__ = sys.modules[__name__]
        """
    (backend / "build_meta.py").write_text(textwrap.dedent(source), "utf-8")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "PIP_USE_PEP517": "1"}


def _extract(archive: str, data: bytes, path: tuple[str, ...]) -> bytes:
    """A member of an archive, or of an archive in it, by name and in memory: no path in it can lead astray."""
    for member in path:
        if archive.endswith((".whl", ".zip")):
            with zipfile.ZipFile(io.BytesIO(data)) as opened:
                data = opened.read(member)
        else:
            with tarfile.open(fileobj=io.BytesIO(data)) as opened:
                data = opened.extractfile(member).read()
        archive = member
    return data


# --- readers: from checked bytes to arrays --------------------------------------------------------


def _traffic(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(files["traffic_hourly.zip"])) as archive:
        text = archive.read(archive.namelist()[0]).decode()
    head, *rows = csv.reader(io.StringIO(text))
    column = dict(zip(head, zip(*rows, strict=True), strict=True))

    def number(key: str) -> np.ndarray:
        return np.array([value or "nan" for value in column[key]], dtype=np.float32)

    return {
        "time": np.array(column["datetime"], dtype="datetime64[s]").astype("datetime64[h]"),
        "volume": number("traffic_volume"),
        "temperature": number("temp"),
        "rain": number("rain_1h"),
        "snow": number("snow_1h"),
        "clouds": number("clouds_all"),
        "weather": np.array(column["weather_main"]),
    }


def _spoken_digits(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(files["digits.npz"]), allow_pickle=False) as archive:
        frames, lengths, labels = archive["X"], archive["lengths"], archive["y"]
    within = np.arange(lengths.max()) < lengths[:, None]
    features = np.zeros((*within.shape, frames.shape[1]), dtype=np.float32)
    features[within] = frames  # the recordings' frames follow one another, and so do the True of `within`
    return {"features": features, "lengths": lengths, "labels": labels}


def _mnist_5k(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    text = gzip.decompress(files["mnist_5k.csv.gz"]).decode()
    table = np.loadtxt(io.StringIO(text), delimiter=",", dtype=np.uint8)  # a row: 784 pixels, label
    images = table[:, :-1].reshape(-1, 28, 28) / np.float32(255)
    return {"images": images, "labels": table[:, -1].astype(np.int64)}


def _chickenpox(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    content = json.loads(files["chickenpox.json"])
    return {
        "change": np.array(content["FX"], dtype=np.float32),
        "edges": np.array(content["edges"], dtype=np.int64),
        "counties": np.array(sorted(content["node_ids"], key=content["node_ids"].get)),
    }


def _multi30k(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    data = {}
    for name, packed in files.items():
        part, language, _ = name.split(".")  # such as test_2016_flickr.de.gz
        lines = gzip.decompress(packed).decode("utf-8").removesuffix("\n").split("\n")
        data[f"{part.split('_')[0]}_{language}"] = np.array([" ".join(line.split()) for line in lines])
    return data


def _wnut17(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    data = {}
    for name, content in files.items():
        words, tags, starts, ended = [], [], [], True
        for line in content.decode("utf-8").split("\n"):
            if not line.strip():  # a tab alone, too, ends a text
                ended = True
                continue
            if ended:
                starts.append(len(words))
                ended = False
            word, tag = line.split("\t")
            words.append(word)
            tags.append(tag)
        part = next(part for part in ("train", "dev", "test") if part in name)
        data[f"{part}_word"], data[f"{part}_tag"] = np.array(words), np.array(tags)
        data[f"{part}_starts"] = np.array([*starts, len(words)])
    return data


def _shakespeare(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    titles, texts = [], []
    for data in files.values():
        lines = data.decode("ascii").splitlines()
        first = next(k for k, line in enumerate(lines) if line.startswith("ACT "))  # after title and persons
        titles.append(lines[0])
        texts.append("\n".join(line.rstrip() for line in lines[first:]).rstrip() + "\n")
    return {
        "text": np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8).copy(),
        "starts": np.cumsum([0, *map(len, texts)]).astype(np.int64),
        "titles": np.array(titles),
    }


def _sp500(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    text = gzip.decompress(files["sp500_dataset.csv.gz"]).decode("ascii")
    (_, *tickers), *rows = csv.reader(io.StringIO(text))
    return {
        "date": np.array([row[0] for row in rows], dtype="datetime64[D]"),
        "price": np.array([row[1:] for row in rows], dtype=np.float64),
        "ticker": np.array(tickers),
    }


def _movie_reviews(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    text = files["movieReviewSnippets_GroundTruth.txt"].decode("utf-8")
    _, score, sentence = zip(*(line.split("\t") for line in text.split("\r\n")), strict=True)  # number, mean, text
    return {"text": np.array(sentence), "score": np.array(score, dtype=np.float64)}


def _chinese_reviews(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    reviews, positive = [], []
    for file in ("neg.txt", "pos.txt"):
        stripped = [line.strip() for line in files[file].decode("utf-8").split("\n")]
        lines = [line.encode("utf-8") for line in stripped if line]
        reviews += lines
        positive += [file == "pos.txt"] * len(lines)
    return {
        "text": np.frombuffer(b"".join(reviews), dtype=np.uint8).copy(),  # rows of equal width would take 400 MB
        "starts": np.cumsum([0, *map(len, reviews)]).astype(np.int64),
        "positive": np.array(positive),
    }


def _peoples_daily(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    text, labels, starts, paragraphs = [], [], [], []
    lines = filter(str.strip, files["199801.txt"].decode("utf-8").split("\n"))
    for paragraph, line in enumerate(lines):
        words = [word.rpartition("/")[::2] for word in line.split()]  # (word, part of speech)
        ended, given = True, 0
        for k, (word, tag) in enumerate(words):
            if ended and (word not in "”’）》" or not k):
                starts.append(len(text))
                paragraphs.append(paragraph)
                ended = False
            ended = ended or word in "。！？"
            kind = {"nr": "PER", "ns": "LOC", "nt": "ORG"}.get(tag)
            begun = given == k > 0  # a given name goes on where its family name began
            if kind == "PER" and not begun and _family(words, k):
                given = k + 1
            inside = f"I-{kind}" if kind else "O"
            text += word
            labels += [inside if begun or not kind else f"B-{kind}"] + [inside] * (len(word) - 1)
    return {
        "text": np.array(text),
        "label": np.array(labels),
        "starts": np.array([*starts, len(text)]),
        "paragraph": np.array(paragraphs),
    }


def _family(words: list[tuple[str, str]], k: int) -> bool:
    """Whether the name at k is a family name and the next word its given name."""
    after = [tag == "nr" for _, tag in words[k + 1 : k + 3]] + [False, False]
    before = k > 0 and words[k - 1][1] == "nr"
    length = len(words[k][0])
    return after[0] and (length == 1 or (length == 2 and not before and not after[1]))


def _chicago_l(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    # A pandas frame as a pickle. It is not unpickled, which could run anything: its opcodes are listed, and the
    # first array and the texts are taken. That array has a row for each of 39 columns, the stations in 1 to 20.
    opcodes = list(pickletools.genops(lzma.decompress(files["Chicago.pkl.compress"])))
    first = next(value for opcode, value, _ in opcodes if opcode.name == "BYTEARRAY8")
    texts = [value for opcode, value, _ in opcodes if opcode.name == "SHORT_BINUNICODE"]
    days = [text for text in texts if re.fullmatch(r"\d{4}-\d\d-\d\d", text)]
    stations = texts[texts.index("ridership") + 1 :][:20]
    counts = np.frombuffer(first, dtype="<f8").reshape(39, len(days))[1:21]
    return {
        "date": np.array(days, dtype="datetime64[D]") - 14,  # the release's counts are of two weeks before
        "riders": counts.T.astype(np.float64),
        "station": np.array(stations),
    }


def _smartwatch(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    # Arrays in a pickle of Python 2, behind the 128 bytes of numpy's header. As above, its opcodes are listed and
    # nothing is run. A long text is the bytes of an array: the recordings, by columns; exercise, person, side.
    opcodes = pickletools.genops(files["watch_dataset.npy"][128:])
    texts = [value for opcode, value, _ in opcodes if opcode.name == "BINUNICODE"]
    *recordings, exercise, person, side = (text.encode("latin-1") for text in texts if len(text) > 1000)
    recordings = [np.frombuffer(recording, "<f8").reshape(6, -1).T for recording in recordings]
    return {
        "signal": np.concatenate(recordings).astype(np.float32, order="C"),
        "starts": np.cumsum([0, *map(len, recordings)]).astype(np.int64),
        "exercise": np.frombuffer(exercise, "<i8").astype(np.int64),
        "person": np.frombuffer(person, "<i8").astype(np.int64),
        "right": np.frombuffer(side, "<f8") == 1,
        "channels": np.array(texts[texts.index("X_labels") + 1 :][:6]),
        "names": np.array(texts[texts.index("y_labels") + 1 :][:7]),
    }


_READERS = {
    "traffic": _traffic,
    "spoken_digits": _spoken_digits,
    "mnist_5k": _mnist_5k,
    "chickenpox": _chickenpox,
    "multi30k": _multi30k,
    "wnut17": _wnut17,
    "shakespeare": _shakespeare,
    "sp500": _sp500,
    "movie_reviews": _movie_reviews,
    "chinese_reviews": _chinese_reviews,
    "peoples_daily": _peoples_daily,
    "chicago_l": _chicago_l,
    "smartwatch": _smartwatch,
}

"""`python tools/lab_model.py`: train the reader of the laboratory, and write it as a script of the page.

A character LSTM of the size and on the plays of notebooks/gates/reading_gates.ipynb, trained for longer, and with
brackets all over its windows, so that the place in a window says nothing about them. The weights are rounded to 16
bits, with a scale for each array. Another processor has other last digits and ends at another network: then what
book/laboratory.md says of single cells is to be looked at again. tests/test_laboratory.py knows where.
"""

from __future__ import annotations

import base64
import json
import math
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from chapters import ROOT
from lstm_lib import files, init, training
from lstm_lib.book import datasets
from lstm_lib.recurrent import LSTM
from lstm_lib.trace import trace

PATH = ROOT / "book" / "_static" / "lab" / "reader.js"
PARTS = {"validation": "JULIUS CAESAR", "test": "MACBETH"}
"""The plays that are not trained on; the other six are, as in the chapter."""

EMBEDDED, HIDDEN = 16, 64
SEED, STEPS, BATCH, T, RATE, DECAY = 0, 6000, 32, 100, 0.015, 0.1


class Reader(nn.Module):
    """Scores of the next character: (batch, seq_len) codes to (batch, seq_len, V)."""

    def __init__(self, V: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, EMBEDDED)
        self.rnn = LSTM(EMBEDDED, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, V)
        init.forget_bias_(self.rnn, 3.0)

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(codes))[0])


def plays() -> tuple[np.ndarray, dict[str, Tensor]]:
    """The characters that occur, in the order of their codes, and the codes of each part of the plays."""
    data = datasets.load("shakespeare")
    alphabet = np.unique(data["text"])
    ends = zip(data["titles"].tolist(), data["starts"], data["starts"][1:], strict=False)
    codes = {title: torch.from_numpy(np.searchsorted(alphabet, data["text"][a:b])) for title, a, b in ends}
    kept = {part: codes.pop(title) for part, title in PARTS.items()}
    return alphabet, {"train": torch.cat([*codes.values()]), **kept}


def train(V: int, text: Tensor, bracket: int) -> Reader:
    """A reader, trained on windows of which half hold the start of a stage direction."""
    openings = torch.nonzero(text == bracket).flatten()
    openings = openings[(openings > T) & (openings < len(text) - 2 * T)]

    def windows(generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        def draw(below: int, *shape: int) -> Tensor:
            return torch.randint(0, below, shape, generator=generator)

        start, half = draw(len(text) - T - 1, BATCH, 1), BATCH // 2
        start[:half, 0] = openings[draw(len(openings), half)] - draw(T, half)
        window = text[start + torch.arange(T + 1)]
        return window[:, :-1], window[:, 1:]

    torch.manual_seed(SEED)
    reader = Reader(V)
    training.fit(
        reader,
        windows,
        steps=STEPS,
        lr=RATE,
        seed=SEED,
        schedule=lambda step: 1 - 0.98 * step / STEPS,
        clip=1.0,
        optimizer=lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=DECAY),
        loss=lambda scores, y: cross_entropy(scores.flatten(0, -2), y.flatten()),
        device="cpu",
        progress=False,
    )
    return reader


@torch.no_grad()
def turn(reader: Reader, codes: Tensor, bracket: int) -> None:
    """Choose the sign of each cell, in place: higher, in the mean, in the ten characters from a "[" on.

    A cell with its candidate, and all that reads its h, of the other sign is the same network.
    """
    rows = codes[: len(codes) // 500 * 500].view(-1, 500)
    c = trace(reader.rnn, reader.embed(rows)).c[0, 0]  # (500, rows, HIDDEN)
    after = torch.zeros(rows.shape)
    for k in range(10):
        after[:, k:] += (rows == bracket).float()[:, : 500 - k]
    after = after.T.bool()
    sign = torch.where(c[after].mean(0) < c[~after].mean(0), -1.0, 1.0)
    for name, value in reader.rnn.named_parameters():
        value[2 * HIDDEN : 3 * HIDDEN] *= sign if value.dim() == 1 else sign[:, None]
        if name == "weight_hh_l0":
            value *= sign
    reader.head.weight *= sign


@torch.no_grad()
def bits(reader: Reader, codes: Tensor) -> float:
    """-log2 p of a character, in the mean; read in stretches of 500, of which the first 50 do not count."""
    rows = codes[: len(codes) // 500 * 500].view(-1, 500)
    scores = log_softmax(reader(rows[:, :-1]), -1)
    return -scores.gather(-1, rows[:, 1:, None])[:, 50:].mean().item() / math.log(2)


def written(reader: Reader, alphabet: np.ndarray, codes: dict[str, Tensor]) -> str:
    """The script: `globalThis.reader`, its numbers as 16-bit integers in base64, little-endian."""
    arrays = {}
    for name, value in reader.state_dict().items():
        scale = value.abs().max().item() / 32767
        rounded = (value / scale).round().numpy().astype("<i2")
        value.copy_(torch.from_numpy(rounded * scale))
        arrays[name] = {
            "shape": list(value.shape),
            "scale": scale,
            "base64": base64.b64encode(rounded.tobytes()).decode(),
        }
    figures = {part: round(bits(reader, codes[part]), 4) for part in PARTS}
    lines = [
        f"A character LSTM: embedding of {EMBEDDED}, {HIDDEN} units, {len(alphabet)} characters.",
        f"Trained by tools/lab_model.py: {STEPS:,} steps of {BATCH} windows of {T} characters, seed {SEED}.",
        "Data: six plays by Shakespeare, in the public domain (lstm_lib.book.datasets, shakespeare).",
        f"Bits per character: {figures['validation']} on Julius Caesar, {figures['test']} on Macbeth, unseen.",
    ]
    model = {
        "bits": figures,
        "alphabet": alphabet.tobytes().decode(),
        "sizes": [EMBEDDED, HIDDEN],
        "arrays": arrays,
    }
    head = "".join(f"// {line}\n" for line in lines)
    return f'{head}"use strict";\nglobalThis.reader = {json.dumps(model, indent=1)};\n'


def described(script: str) -> dict:
    """What a script that `written` has made holds."""
    return json.loads(script.partition("globalThis.reader = ")[2].rstrip().removesuffix(";"))


def read(script: str) -> Reader:
    """The reader of a script that `written` has made."""
    model = described(script)
    reader = Reader(len(model["alphabet"]))
    for name, value in reader.state_dict().items():
        array = model["arrays"][name]
        rounded = np.frombuffer(base64.b64decode(array["base64"]), dtype="<i2").reshape(array["shape"])
        value.copy_(torch.from_numpy(rounded * array["scale"]))
    return reader


def main() -> None:
    """Train, write, and say what came out."""
    alphabet, codes = plays()
    begun = time.process_time()
    bracket = int(np.searchsorted(alphabet, ord("[")))
    reader = train(len(alphabet), codes["train"], bracket)
    took = time.process_time() - begun
    turn(reader, codes["validation"], bracket)
    script = written(reader, alphabet, codes)
    files.write(PATH, script)
    print(f"{took:.0f} s of training; {len(script) / 1000:.0f} kB; bits per character {described(script)['bits']}")


if __name__ == "__main__":
    main()

# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Translation: dates of twelve places
#
# *"Dienstag, 4. März 2025", "3/4/2025", "2025年3月4日": one network reads them, character by character, and writes
# 2025-03-04. What does it learn from examples that a program of rules doesn't have, and what can it not know?*
#
# When you have worked through this chapter, you can
#
# - build an encoder and a decoder with attention, and train it by teacher forcing;
# - say what a decoder needs its own last character for, and measure what an error in it does;
# - tell a string that is hard from one that nobody can read for certain;
# - put a parser and a dozen lines of rules beside the network, on input as it should be and as it is typed.
#
# It runs in about a minute on one CPU thread. You need {doc}`/notebooks/optimization/attention` and, for padded batches,
# {doc}`/notebooks/implementation/nn_lstm`.

# %% tags=["setup", "hide-input"]
# `make notebooks` writes this cell.

# %% tags=["parameters"]
scale = "quick"    # "full" for more strings, units, steps and ten seeds
device = "auto"    # "cpu", "cuda"
seed = 0

# %%
import re
from collections import namedtuple
from datetime import date, datetime
from statistics import median
from unicodedata import normalize

import dateparser
import dateutil.parser
import jiwer
import matplotlib.pyplot as plt
import numpy as np
import torch
from babel import Locale
from babel.dates import format_date, get_month_names
from rapidfuzz import process
from rapidfuzz.distance import OSA
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from lstm_lib import LSTM, checkpoints
from lstm_lib.attention import AdditiveAttention, length_mask
from lstm_lib.book import notebook
from lstm_lib.book.notebook import ranged
from lstm_lib.book.plots import COLOUR

run = notebook.start("applications/translation", scale, device, seed)
seeds = run.seeds(run.pick(quick=3, full=10))
count, steps, hidden_size = run.pick(quick=(20_000, 750, 64), full=(200_000, 6000, 128))
budget = f"{count:,} strings, {steps:,} steps"

# %% [markdown]
# ## Why write one character after the other?
#
# Read "3/4/2025". An American means the 4th of March, a Spaniard and a Greek the 3rd of April. Suppose that one such
# string in three is American, and that nobody says who wrote it. Then the month's second digit is a 4 with probability
# 2/3, and the day's second digit is a 3 with probability 2/3. A writer who puts down each digit without a look at
# the others takes month 4 *and* day 4 in $2/3 \cdot 1/3 = 2/9$ of all cases, a date that nobody meant, and month 3 with day
# 3 in another 2/9. One who has just written "04" for the month knows how he reads the string: the day is then a 3 for
# certain.
#
# So the probability of the answer is taken apart from left to right. For a source $x = x_1 \dots x_S$ and the ten
# characters $y_1 \dots y_{10}$ of the answer,
#
# $$ p(y \mid x) = \prod_{t=1}^{10} p(y_t \mid y_1, \dots, y_{t-1}, x) , $$ (eq-translation-chain)
#
# here $p(\text{2025-04-03}) = 1 \cdots \tfrac23 \cdots 1$, and $p(\text{2025-04-04}) = 0$. Each factor looks at another
# part of the source ({numref}`fig-translation-order`): the year is written first and stands last, the month is a name. An
# {term}`encoder` reads $x$, a {term}`decoder` writes $y$ {cite:p}`sutskever2014sequence`, and attention
# {cite:p}`bahdanau2015neural` looks the parts up.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-translation-order", "caption": "**The parts change places, and a name becomes a number.** Where each part of the answer (below) stands in the source (above). The weekday is not needed."}, "image": {"alt": "Two rows of characters. Above: Dienstag, 4. März 2025; below: 2025-03-04. Lines lead from 2025 at the right end of the upper row to 2025 at the left end of the lower one, from März to 03, and from 4 to 04; the lines cross. From Dienstag no line starts."}}
fig, ax = plt.subplots(figsize=(5.6, 2.1))
source, target = "Dienstag, 4. März 2025", "2025-03-04"
for text, y, start in ((source, 1, 0), (target, 0, 6)):
    for k, c in enumerate(text):
        ax.text(start + k, y, c, ha="center", va="center", family="monospace", fontsize=12)
for above, below, colour in (((18, 21), (6, 9), "rnn"), ((13, 16), (11, 12), "lstm"), ((10, 10), (14, 15), "gru")):
    for row, (a, b), side in ((1, above, -0.17), (0, below, 0.17)):
        ax.plot((a - 0.4, b + 0.4), (row + side,) * 2, color=COLOUR[colour], lw=2.5)
    ax.plot((np.mean(above), np.mean(below)), (0.83, 0.17), color=COLOUR[colour], lw=1.5)
ax.set(xlim=(-1, 22), ylim=(-0.25, 1.25))
ax.axis("off")
plt.show()

# %% [markdown]
# ## What are the data?
#
# The Unicode project's Common Locale Data Repository (CLDR) says how dates are written where; the package `babel` brings
# it. We take twelve locales of eleven languages and the four styles that CLDR has for each. Years have four digits, the
# calendar is the Gregorian one, and CLDR's narrow and no-break spaces become plain ones.

# %%
LOCALES = "en_US en_GB de fr es pl ru el tr fi hu ja".split()
STYLES = ("full", "long", "medium", "short")
PATTERN = {(place, style): Locale.parse(place).date_formats[style].pattern.replace("yy", "y")
           for place in LOCALES for style in STYLES}


def write(day, place, style):
    """A date as CLDR writes it there; NFKC makes plain spaces of all others."""
    return normalize("NFKC", format_date(day, PATTERN[place, style], locale=place))


def slip(text, dice):
    """One letter in a word of three or more goes wrong; other strings stay."""
    words = [m.span() for m in re.finditer(r"[^\W\d_]{3,}", text)]
    new = text
    while words and new == text:
        start, end = words[dice.integers(len(words))]
        k, letters = dice.integers(start, end - 1), text[start:end]
        head, a, b, tail = text[:k], text[k], text[k + 1], text[k + 2:]
        other = letters[dice.integers(len(letters))]
        new = head + (b + a, b, a + a + b, other + b)[dice.integers(4)] + tail
    return new

# %% [markdown]
# `slip` swaps two letters, loses one, doubles one, or puts another of the word in its place: what fingers do. Digits
# stay right, since nobody could repair them.
#
# Each example also says for which place the string is meant, or "?" for *not told*. We train on
# {glue:text}`translation-count:,` of the {glue:text}`translation-possible:.1f` million ways to write the days of two
# centuries: told and untold by the toss of a coin, and with a slip two times out of three where there is a word to slip in. **Days are
# held out whole**: a day of the test is in no training string, in no language. Each seed has its own split.

# %%
Example = namedtuple("Example", "told text iso place style")
FIRST, LAST = date(1900, 1, 1).toordinal(), date(2099, 12, 31).toordinal()


def examples(days, n, dice):
    """What to train on: n strings, told or not, with a slip or not."""
    out = []
    for _ in range(n):
        day = date.fromordinal(int(dice.choice(days)))
        place, style = dice.choice(LOCALES), dice.choice(STYLES)
        text = write(day, place, style)
        text = slip(text, dice) if dice.random() < 2 / 3 else text
        told = place if dice.random() < 0.5 else "?"
        out.append(Example(told, text, day.isoformat(), place, style))
    return out


class Split:
    """Days to learn from, to choose on, to test on; ten strings of each kind."""

    def __init__(self, seed):
        self.dice = np.random.default_rng(seed)
        days = self.dice.permutation(np.arange(FIRST, LAST + 1))
        self.test, self.choose, self.learn = np.split(days, (7000, 10_000))
        self.train = examples(self.learn, count, self.dice)
        self.clean, self.slips = self.exam(self.test)

    def exam(self, days, each=10):
        day = (date.fromordinal(int(d)) for d in self.dice.choice(days, 48 * each))
        clean = [Example(place, write(d, place, style), d.isoformat(), place, style)
                 for place in LOCALES for style in STYLES for _, d in zip(range(each), day)]
        slips = [e._replace(text=slip(e.text, self.dice)) for e in clean]
        return clean, [s for s, e in zip(slips, clean, strict=True) if s != e]

# %% tags=["nbval-ignore-output"]
splits = [Split(s) for s in seeds]

# %% tags=["hide-input"]
shown = date(2025, 3, 4)
run.table(("4 March 2025", *STYLES), *((place, *(write(shown, place, s) for s in STYLES)) for place in LOCALES))
run.say(count=count, possible=(LAST - FIRST + 1) * len(PATTERN) / 1e6, clean=len(splits[0].clean),
        slips=len(splits[0].slips), steps=steps)

# %% [markdown]
# A test has {glue:text}`translation-clean` strings, ten for each place and style, and once more, with a slip each, the
# {glue:text}`translation-slips` of the first split that have a word to slip in.
#
# ## What would one do without a network?
#
# *A parser.* `dateparser` knows more than two hundred locales, from CLDR as well. It gets a fair chance: the language and
# the order of day, month and year where they are told; the eleven languages to try where not, and the order that does best
# on days set apart for choosing. It may **refuse**, which is worth much: a refusal can be asked about, a wrong date goes
# unnoticed.
#
# *A dozen lines of rules*, by someone who knows how the strings are made: the numbers in the order of the place, and the
# month whose name is spelt nearest to a word of the string (least edits, a swap of neighbours counted as one).

# %%
ORDER = {"en_US": "MDY", "hu": "YMD", "ja": "YMD"}                 # elsewhere DMY
LANGUAGES = sorted({place[:2] for place in LOCALES})
NAMES = {place: {name.lower(): month for width in ("wide", "abbreviated")
                 for context in ("format", "stand-alone")
                 for month, name in get_month_names(width, context, place).items()}
         for place in LOCALES if place != "ja"}                   # which writes 3月
EVERY = {name: month for names in NAMES.values() for name, month in names.items()}


def parser(text, place="?", untold="DMY", strict=True):
    """dateparser's date, or None."""
    told = place != "?"
    settings = {"DATE_ORDER": ORDER.get(place, "DMY") if told else untold,
                "PREFER_LOCALE_DATE_ORDER": False, "STRICT_PARSING": strict,
                "RELATIVE_BASE": datetime(2000, 1, 1)}
    found = dateparser.parse(text, languages=[place[:2]] if told else LANGUAGES,
                             settings=settings)
    return found and found.date().isoformat()

# %%
def rules(text, place="?"):
    """Numbers in the order of the place, the month's name by the nearest spelling."""
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    year = next((n for n in numbers if n > 31), None)
    rest = [n for n in numbers if n != year]
    words = re.findall(r"[^\W\d]+\.?", text.lower())
    order, names = ORDER.get(place, "DMY"), NAMES.get(place, EVERY)
    if place == "?" and numbers[:1] == [year]:
        order = "YMD"
    if len(rest) == 1 and words:                                  # the month is a name
        near = [process.extractOne(w, list(names), scorer=OSA.normalized_similarity)
                for w in words]
        rest, order = [*rest, names[max(near, key=lambda n: n[1])[0]]], "DMY"
    try:
        day, month = rest if order == "DMY" else rest[::-1]
        if place == "?" and month > 12:
            day, month = month, day
        return date(year, month, day).isoformat()
    except (TypeError, ValueError):
        return None

# %% [markdown]
# Two more rows: `dateutil`, which speaks English, and the most frequent date, which is right about never. And one row is
# no rival, but a **ceiling**: not told the place, nobody can know what "3/4/2025" means. Each string has a few readings, and
# we know how often each is meant, because we know how the strings are made: a reader who always takes the likeliest is wrong least
# often.

# %%
def readings(text, day):
    """The ways to read a string, each with the number of (place, style) that mean it."""
    days = {day, date(day.year, day.day, day.month) if day.day < 13 else day}
    ways = {d: sum(write(d, *key) == text for key in PATTERN) for d in days}
    return {d: n for d, n in ways.items() if n}


def lost(example):
    """How probable it is that the likeliest reading is not the one that is meant."""
    if any(c.isalpha() for c in example.text):
        return 0.0                                                # a name: one reading
    ways = readings(example.text, date.fromisoformat(example.iso)).values()
    return 1 - max(ways) / sum(ways)


assert len({(n, m) for names in NAMES.values() for n, m in names.items()}) == len(EVERY)

# %% tags=["hide-input", "nbval-ignore-output"]
def score(found, exam):
    """Shares in per cent: wrong, refused; and the characters wrong."""
    said = [e.iso for e in exam]
    refused = np.array([f is None for f in found])
    wrong = np.array([f != s for f, s in zip(found, said, strict=True)]) & ~refused
    return 100 * wrong.mean(), 100 * refused.mean(), 100 * jiwer.cer(said, [f or "" for f in found])


def english(text, place="?"):
    try:
        order = ORDER.get(place, "DMY")
        return dateutil.parser.parse(text, dayfirst=order == "DMY", yearfirst=order == "YMD").date().isoformat()
    except (ValueError, OverflowError):
        return None


def answers(reader, exam, told):
    return [reader(e.text, e.place if told else "?") for e in exam]


RIVALS = {"dateparser": parser, "a dozen lines of rules": rules, "dateutil": english}
chosen = {}                                       # on days that are in no test
for_choosing = [e for part in splits[0].exam(splits[0].choose, 3) for e in part]
for told, options in ((True, [{"strict": True}, {"strict": False}]),
                      (False, [{"untold": order} for order in ("DMY", "MDY", "YMD")])):
    right = [sum(parser(e.text, e.place if told else "?", **o) == e.iso for e in for_choosing) for o in options]
    chosen[told] = (right, options[int(np.argmax(right))])
assert chosen[False][1] == {"untold": "DMY"}
theirs = {(name, part, told): [answers(f, getattr(split, part), told) for split in splits]
          for name, f in RIVALS.items() for part in ("clean", "slips") for told in (True, False)}
unknowable = [np.mean([lost(e) for e in split.clean]) for split in splits]
run.say(tried=len(for_choosing), dmy=chosen[False][0][0], mdy=chosen[False][0][1],
        strict=chosen[True][0][0], lax=chosen[True][0][1])

# %% [markdown]
# Of {glue:text}`translation-tried` strings for choosing, dateparser reads {glue:text}`translation-dmy` rightly, untold, if
# it takes the day to come first, and {glue:text}`translation-mdy` if the month; told, {glue:text}`translation-strict` with
# strict parsing and {glue:text}`translation-lax` without. Day first and strict it is. (The rules are what we would write at once; nothing
# in them was tuned.)
#
# ## The network
#
# The encoder reads in both directions, so that the state at a digit knows whether another follows; with $H$ units each
# way,
#
# $$ h_s = [\overrightarrow{h}_s ; \overleftarrow{h}_s] \in \mathbb{R}^{2H}, \qquad
#    q_0 = \tanh(W \overleftarrow{h}_1) \in \mathbb{R}^{H} . $$ (eq-translation-encoder)
#
# $\overleftarrow{h}_1$ has read the whole string, from its end. A padded batch is turned round string by string, so that
# no state has read padding and nothing need be packed.

# %%
DIGITS, BEGIN = "0123456789-", 11
LETTERS = sorted({c for m in range(1, 13) for d in range(1, 29) for key in PATTERN
                  for c in write(date(2025, m, d), *key)} | set("0123456789"))
CODE = {c: k for k, c in enumerate([*LETTERS, "?", *LOCALES], start=2)}   # 1: unknown


def collate(batch):
    """Codes x (B, S), padded with 0, their lengths (B,), and what to write, y (B, 10)."""
    codes = [torch.tensor([CODE.get(c, 1) for c in (e.told, *e.text)]) for e in batch]
    lengths = torch.tensor([len(c) for c in codes])
    y = torch.tensor([[DIGITS.index(c) for c in e.iso] for e in batch])
    return pad_sequence(codes, batch_first=True), lengths, y


def turned(v, lengths):
    """v (B, S, ·), each string's own steps reversed, its padding left where it is."""
    s = torch.arange(v.shape[1], device=v.device)
    s = torch.where(s < lengths[:, None], lengths[:, None] - 1 - s, s)
    return v.gather(1, s[..., None].expand_as(v))

# %% [markdown]
# The place goes in as the first symbol. The decoder is an LSTM that reads the character before; attention, with the
# weights $\alpha_{ts}$ of {doc}`/notebooks/optimization/attention`, gives the context; both make the scores of eleven
# characters:
#
# ```{math}
# :label: eq-translation-decoder
# \begin{aligned}
# q_t &= \mathrm{LSTM}(y_{t-1}, q_{t-1}), &\qquad c_t &= \textstyle\sum_s \alpha_{ts} h_s, \\
# p(y_t \mid y_1 \dots y_{t-1}, x) &= \mathrm{softmax}(V [q_t ; c_t] + b), &\qquad V &\in \mathbb{R}^{11 \times 3H} .
# \end{aligned}
# ```
#
# {cite:t}`bahdanau2015neural` feed $c_t$ back into the decoder, too. Without that, as here, the decoder's ten steps are
# one call of a kernel while we train. The answer has ten characters always; where lengths differ, one more symbol says
# "end".

# %%
class Reader(nn.Module):
    """Reads a date's characters, writes ten."""

    def __init__(self, H):
        super().__init__()
        self.embed = nn.Embedding(len(CODE) + 2, 32, padding_idx=0)
        self.onwards, self.back = (LSTM(32, H, batch_first=True) for _ in range(2))
        self.start = nn.Linear(H, H)
        self.feed = nn.Embedding(12, 16)                        # y, or BEGIN
        self.decoder = LSTM(16, H, batch_first=True)
        self.attention = AdditiveAttention(H, 2 * H, H)
        self.head = nn.Linear(3 * H, 11)

    def encode(self, x, lengths):
        """States h (B, S, 2H), where they are no padding (B, S), the decoder's first."""
        e = self.embed(x)
        back = turned(self.back(turned(e, lengths))[0], lengths)
        q = torch.tanh(self.start(back[:, 0]))[None]            # q₀ = tanh(W h←₁)
        h = torch.cat([self.onwards(e)[0], back], -1)           # h_s = [h→ ; h←]
        return h, length_mask(lengths, x.shape[1]), (q, torch.zeros_like(q))

    def step(self, fed, h, mask, state):
        """Scores (B, T, 11) after the characters fed (B, T); the state; α (B, T, S)."""
        q, state = self.decoder(self.feed(fed), state)          # q_t
        context, weights = self.attention(q, h, mask=mask)      # c_t = Σ α h
        return self.head(torch.cat([q, context], -1)), state, weights

    def forward(self, x, lengths, y):
        """Teacher forcing: the scores of each y_t, the true ones before it given."""
        h, mask, state = self.encode(x, lengths)
        begin = torch.full_like(y[:, :1], BEGIN)
        return self.step(torch.cat([begin, y[:, :-1]], 1), h, mask, state)[0]

# %% [markdown]
# **Teacher forcing**: in training the decoder is fed the *true* character before, whatever it would have written itself. The
# loss is the mean of $-\log p(y_t \mid y_1 \dots y_{t-1}, x)$, the logarithm of {eq}`eq-translation-chain` with its sign
# turned, per character. Strings of about equal length share a batch, so that little is padded.

# %%
def batches(strings, size, dice):
    """Batches of about equal length, in random order, epoch after epoch."""
    while True:
        order = sorted(strings, key=lambda e: (len(e.text), dice.random()))
        cut = [order[k:k + size] for k in range(0, len(order), size)]
        for k in dice.permutation(len(cut)):
            yield collate(cut[k])


def train(strings, seed, steps=steps, lr=0.008, kind=Reader):
    torch.manual_seed(seed)
    model = kind(hidden_size).to(run.device)
    adam = torch.optim.Adam(model.parameters(), lr)
    data = batches(strings, 64, np.random.default_rng(seed))
    for step, batch in zip(range(steps), data):
        x, lengths, y = (part.to(run.device) for part in batch)
        for group in adam.param_groups:                         # up, then down to 0
            group["lr"] = lr * min(1, (step + 1) / 50, 2 * (1 - step / steps))
        loss = cross_entropy(model(x, lengths, y).transpose(1, 2), y)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    return model.eval()

# %% [markdown]
# Afterwards nobody knows the true character. **Greedy** decoding feeds the decoder its own last one, the likeliest:

# %%
@torch.no_grad()
def greedy(model, x, lengths, prefix=None):
    """What it writes (B, 10), log p of that (B,), and where it looked (B, 10, S)."""
    h, mask, state = model.encode(x, lengths)
    fed, written, looked, total = torch.full_like(x[:, :1], BEGIN), [], [], 0
    for t in range(10):
        scores, state, weights = model.step(fed, h, mask, state)
        best, fed = scores.log_softmax(-1).max(-1)              # its own, (B, 1) each
        if prefix is not None and t < prefix.shape[1]:
            fed = prefix[:, t:t + 1]                            # ours, for an experiment
        written.append(fed)
        looked.append(weights)
        total = total + best[:, 0]
    return torch.cat(written, 1), total, torch.cat(looked, 1)


def spelt(codes):
    return ["".join(DIGITS[k] for k in row) for row in codes.tolist()]


def asked(exam, told=True):
    exam = exam if told else [e._replace(told="?") for e in exam]
    return [part.to(run.device) for part in collate(exam)]


def read(model, exam, told=True):
    """The answers to an exam, with log p of each."""
    x, lengths, _ = asked(exam, told)
    written, total, _ = greedy(model, x, lengths)
    return spelt(written), total.cpu().numpy()

# %% tags=["nbval-ignore-output"]
models = [train(split.train, s) for split, s in zip(splits, seeds, strict=True)]
ours = {(part, told): [read(model, getattr(split, part), told)[0]
                       for model, split in zip(models, splits, strict=True)]
        for part in ("clean", "slips") for told in (True, False)}

# %% tags=["hide-input", "nbval-ignore-output"]
found = {("the network", *key): value for key, value in ours.items()} | theirs
figures = {key: np.array([score(f, getattr(split, key[1])) for f, split in zip(value, splits, strict=True)])
           for key, value in found.items()}               # (splits, 3): wrong, refused, characters
READERS = ("the network", *RIVALS)


def cells(name, told):
    for part in ("clean", "slips"):
        wrong, refused, characters = figures[name, part, told].T
        yield from (ranged(wrong, 1), "never" if name == "the network" else ranged(refused, 1),
                    ranged(characters, 1))


head = (f"{part}: {what}" for part in ("as written", "with a slip") for what in (
        "wrong", "refused", "characters wrong"))
run.table(("per cent of the strings, median (range) of the splits", *head),
          *((f"{name}, {'told' if told else 'not told'}", *cells(name, told))
            for told in (True, False) for name in READERS if told or name != "dateutil"),
          ("the ceiling, not told", ranged(100 * np.array(unknowable), 1), *[""] * 5),
          ("the most frequent date", "100.0", *[""] * 5))


def bad(name, part, told):
    """Wrong or refused, of all splits together."""
    return sum(f != e.iso for split, fs in zip(splits, found[name, part, told], strict=True)
               for f, e in zip(fs, getattr(split, part), strict=True))


def share(name, part, told):
    return 100 * bad(name, part, told) / sum(len(getattr(split, part)) for split in splits)


strings = {part: sum(len(getattr(split, part)) for split in splits) for part in ("clean", "slips")}
right = [1 - figures["the network", "clean", True][k, 0] / 100 for k in range(len(splits))]
over_rules = bad("the network", "slips", True) / max(1, bad("a dozen lines of rules", "slips", True))
over_ceiling = [figures["the network", "clean", False][k, 0] / 100 / unknowable[k] for k in range(len(splits))]
run.say(over_rules=over_rules, clean_all=strings["clean"], slips_all=strings["slips"],
        epochs=steps * 64 / count, numbers=sum(p.numel() for p in models[0].parameters()),
        **{f"bad_{who}_{part}_{how}": share(name, part, told) for who, name in zip(
            ("net", "parser", "rules"), READERS[:3], strict=True) for part in ("clean", "slips")
           for how, told in (("told", True), ("untold", False))},
        refused=ranged(figures["dateparser", "slips", True][:, 1]), unknowable=100 * np.mean(unknowable))

# %% tags=["hide-input", "nbval-ignore-output"]
run.claim("A31", f"dates of twelve locales, unseen days, {budget}, place told: share right", right, above=0.98)
run.claim("A31", f"dates with a slip, {budget}, place told: wrong, over dateparser's wrong or refused",
          bad("the network", "slips", True) / bad("dateparser", "slips", True), below=0.1)
run.claim("A31", f"dates with a slip, {budget}, place told: wrong, over those of a dozen lines of rules",
          over_rules, above=1)
run.claim("A31", f"dates, {budget}, place not told: wrong, over the fewest that can be expected of any reader",
          over_ceiling, below=3)

# %% [markdown]
# PROSE-RESULT
#
# ## Where does it look?

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"name": "fig-translation-weights", "caption": "**CAPTION**"}, "image": {"alt": "ALT"}}
pictures = [next(e for e in splits[0].clean if (e.place, e.style) == key) for key in (("de", "full"), ("ja", "full"))]
fig, axes = plt.subplots(2, 1, figsize=(5.6, 4.6))
for ax, example in zip(axes, pictures, strict=True):
    written, _, looked = greedy(models[0], *asked([example])[:2])
    ax.imshow(looked[0].cpu(), cmap="Reds", vmin=0, vmax=1, aspect="auto")
    plain = example.text.translate(str.maketrans("年月日曜火水木金土", "YMDwwwwww")) if example.place == "ja" else example.text
    ax.set(xticks=range(len(example.text) + 1), yticks=range(10), yticklabels=spelt(written)[0], ylabel="written")
    ax.set_xticklabels([f"[{example.place}]", *plain], fontsize=9)
    ax.tick_params(axis="y", labelsize=9)
    ax.grid(False)
axes[1].set(xlabel="read")
plt.show()

# %% tags=["hide-input", "nbval-ignore-output"]
def on_digit(model, exam):
    """Shares: the largest weight of a year's digit on that very digit; the weight on the year's four; by chance."""
    x, lengths, _ = asked(exam)
    looked = greedy(model, x, lengths)[2][:, :4].cpu()                  # (B, 4, S)
    at = torch.tensor([1 + e.text.index(e.iso[:4]) for e in exam])
    places = at[:, None] + torch.arange(4)                              # (B, 4)
    on_year = looked.gather(2, places[:, None].expand(-1, 4, -1)).sum(-1).mean().item()
    exact = (looked.argmax(-1) == places).float().mean().item()
    return 100 * exact, 100 * on_year, 100 * (4 / lengths.float()).mean().item()


looks = np.array([on_digit(model, split.clean) for model, split in zip(models, splits, strict=True)])
run.say(exact=ranged(looks[:, 0]), on_year=ranged(looks[:, 1]), even=np.mean(looks[:, 2]))

# %% [markdown]
# PROSE-LOOK
#
# ## What does an error in the prefix do?

# %%
def after_error(model, exam, t, dice):
    """The share of strings with all later digits right, if y_t was another."""
    x, lengths, y = asked(exam)
    planted = y[:, :t + 1].clone()
    other = torch.from_numpy(dice.integers(1, 10, len(y))).to(y.device)
    planted[:, t] = (planted[:, t] + other) % 10                # any other digit
    written = greedy(model, x, lengths, planted)[0]
    return (written == y)[:, t + 1:].all(1).float().mean().item()


def with_truth(model, exam):
    """Shares right, the true prefix given: whole strings, and characters."""
    x, lengths, y = asked(exam)
    with torch.no_grad():
        right = model(x, lengths, y).argmax(-1) == y
    return right.all(1).float().mean().item(), right.float().mean().item()

# %% tags=["nbval-ignore-output"]
places_of_digits = [0, 1, 2, 3, 5, 6, 8]
planted = np.array([[after_error(model, split.clean, t, np.random.default_rng(t))
                     for t in places_of_digits]
                    for model, split in zip(models, splits, strict=True)])
forced = np.array([with_truth(model, split.slips)
                   for model, split in zip(models, splits, strict=True)])
own = np.array([(1 - w / 100, 1 - c / 100) for w, _, c in figures["the network", "slips", True]])
assert np.allclose(forced[:, 0], own[:, 0])                     # derived below

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"name": "fig-translation-planted", "caption": "**CAPTION**"}, "image": {"alt": "ALT"}}
fig, ax = plt.subplots(figsize=(5.6, 2.6))
middle, low, high = (100 * f(planted, axis=0) for f in (np.median, np.min, np.max))
ax.bar(range(7), middle, yerr=(middle - low, high - middle), color=COLOUR["rnn"], width=0.6,
       error_kw={"ecolor": COLOUR["baseline"], "capsize": 3})
ax.set_xticks(range(7), ["Y....", ".Y...", "..Y..", "...Y.", "M.", ".M", "D."])
ax.set(xlabel="digit in which the error is planted", ylabel="all later digits right (%)", ylim=(0, 105))
plt.show()
run.say(planted_first=ranged(100 * planted[:, 0]), planted_rest=100 * np.median(planted[:, 1:].min(1)),
        forced_all=100 * np.median(forced[:, 0]), forced_characters=100 * np.median(forced[:, 1]),
        own_characters=100 * np.median(own[:, 1]))

# %% [markdown]
# PROSE-PREFIX
#
# ## What can it not know?

# %%
def probability(model, text, told, day):
    """p(y | x), as the chain rule has it, of one way to read a string."""
    x, lengths, y = asked([Example(told, text, day.isoformat(), "", "")])
    with torch.no_grad():
        log_p = model(x, lengths, y).log_softmax(-1)            # (1, 10, 11)
    return log_p.gather(-1, y[..., None]).sum().exp().item()


def two_ways(split, n=60):
    """Test days that are another day if read the other way round, and that one."""
    days = (date.fromordinal(int(d)) for d in split.test)
    both = ((d, date(d.year, d.day, d.month)) for d in days if d.day < 13 and d.day != d.month)
    return [pair for _, pair in zip(range(n), both)]

# %% tags=["nbval-ignore-output"]
doubtful = {"3/4/2025": ("es", lambda d: min(d.day, d.month) < 10),
            "11/12/2025": ("es", lambda d: min(d.day, d.month) > 9),
            "03/04/2025": ("fr", lambda d: min(d.day, d.month) < 10)}
first, truth, sums, followed, beamed = {}, {}, [], [], []
for model, split in zip(models, splits, strict=True):
    for kind, (place, belongs) in doubtful.items():
        days = [pair for pair in two_ways(split, 400) if belongs(pair[0])][:30]
        for d, other in days:
            text = write(d, place, "short")
            ways = readings(text, d)
            truth[kind] = ways[d] / sum(ways.values())
            for told in ("?", "en_US", "es"):
                p, q = (probability(model, text, told, day) for day in (d, other))
                first.setdefault((kind, told), []).append(p / (p + q))
                sums.append(p + q)

# %% tags=["hide-input", "nbval-ignore-output"]
run.table(("day first, of the two readings", "as the strings are made", "not told", "told en_US", "told es"),
          *((kind, f"{truth[kind]:.2f}", *(ranged(first[kind, told], 2) for told in ("?", "en_US", "es")))
            for kind in doubtful))
print(np.min(sums), np.median(sums))

# %% [markdown]
# PROSE-KNOW
#
# ## What has it never met?
#
# A network always writes something. So we let it refuse: if what it wrote is no date, or if $p(y \mid x)$ is below a
# threshold, the one that refuses one in twenty of the strings with a slip on the days for choosing.

# %%
def is_date(text):
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


def careful(model, exam, threshold):
    """Its answers, None where it should not be believed."""
    return [text if is_date(text) and log_p >= threshold else None
            for text, log_p in zip(*read(model, exam), strict=True)]


thresholds = [np.quantile(read(model, split.exam(split.choose, 3)[1])[1], 0.05)
              for model, split in zip(models, splits, strict=True)]

# %% tags=["hide-input", "nbval-ignore-output"]
def moved(day, years):
    """The same day in another year, as far as that has it."""
    return date(years, day.month, min(day.day, 28))


def ordinal(n):
    return f"{n}{'th' if 10 < n < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def impossible(place, day):
    """The 30th or 31st of February, in a locale's long style."""
    return write(date(day.year, 2, 28), place, "long").replace("28", str(30 + day.day % 2))


def never_met(split, n=40):
    """Kinds of strings, each as an exam: what is right stands in iso (None: to be refused)."""
    days = [date.fromordinal(int(d)) for d in split.dice.choice(split.test, n)]
    places = [LOCALES[k % 12] for k in range(n)]
    old = [moved(d, 1700 + d.year - 1900) for d in days]
    new = [moved(d, 2000 + d.year % 50) for d in days]
    feb = [moved(d, 1900 + d.year % 28) for d in days]
    english = ["en_US", "en_GB"]

    def exam(texts, answers, where=places):
        return [Example(w, t, a and a.isoformat(), w, "") for w, t, a in zip(where, texts, answers, strict=False)]

    return {
        "years 1700 to 1899": exam([write(d, w, "long") for d, w in zip(old, places, strict=True)], old),
        "in capitals": exam([write(d, w, "long").upper() for d, w in zip(days, places, strict=True)], days),
        "March 4th, 2025": exam([f"{d:%B} {ordinal(d.day)}, {d.year}" for d in days], days, ["en_US"] * n),
        "4-Mar-2025": exam([f"{d.day}-{d:%b}-{d.year}" for d in days], days, ["en_GB"] * n),
        "2025-03-04": exam([d.isoformat() for d in days], days, ["ja"] * n),
        "04.03.25 for 2025": exam([f"{d:%d.%m.%y}" for d in new], new, ["de"] * n),
        "30 or 31 February": exam([impossible(w, d) for d, w in zip(feb, places, strict=True)], [None] * n),
        "no date": exam(["12 eggs, 3 litres of milk", "Flight LH 441, seat 12 C", "+44 20 7946 0958", "Bach, BWV 1007",
                         "Room 2025, 3rd floor", "Louis XIV", "to be announced", "3.14159265"], [None] * 8, english * 4),
    }


def outcome(found, exam):
    """Right, wrong, refused in per cent."""
    right = np.mean([f == e.iso and f is not None for f, e in zip(found, exam, strict=True)])
    refused = np.mean([f is None for f in found])
    return 100 * np.array([right, 1 - right - refused, refused])


kinds, blind, copied = {}, {}, []
for model, split, threshold in zip(models, splits, thresholds, strict=True):
    for kind, exam in ({"as written": split.clean, "with a slip": split.slips} | never_met(split)).items():
        plain = read(model, exam)[0]
        kinds.setdefault(kind, []).append([outcome(careful(model, exam, threshold), exam),
                                           outcome([parser(e.text, e.place) for e in exam], exam)])
        blind.setdefault(kind, []).append(outcome(plain, exam)[0])
        if kind.startswith("30"):
            copied += [text[5:7] == "02" and text[8:] in ("30", "31") for text in plain]
run.table(("told, per cent, median of the splits", "network, never refusing: right", "refusing: right", "wrong", "refused",
           "dateparser: right", "wrong", "refused"),
          *((kind, f"{median(blind[kind]):.0f}", *(f"{v:.0f}" for v in np.median(kinds[kind], 0).ravel()))
            for kind in kinds))
old = "years 1700 to 1899"
run.claim("A31", f"dates in the {old}, after {budget} of 1900 to 2099: share right", np.array(blind[old]) / 100, below=0.5)
run.say(copied=100 * np.mean(copied))

# %% [markdown]
# PROSE-NEVER
#
# ## Using it
#
# PROSE-USE

# %%
from inspect import getsource, isfunction
from pathlib import Path
from subprocess import run as call
from sys import executable
from tempfile import TemporaryDirectory

SCRIPT = """
import sys, torch
from torch import nn
from lstm_lib import LSTM, checkpoints
from lstm_lib.attention import AdditiveAttention, length_mask
"""


def predict(text, place="?"):
    x = torch.tensor([[CODE.get(c, 1) for c in (place, *normalize("NFKC", text))]])
    return spelt(greedy(model, x, torch.tensor([x.shape[1]]))[0])[0]


source = [SCRIPT, "class Reader(nn.Module):"]
source += [getsource(f) for f in vars(Reader).values() if isfunction(f)]
source += [getsource(f) for f in (turned, greedy, spelt, predict)]
print("\n".join(source)[:200])

# %% [markdown]
# ## What goes wrong
#
# (mistake-decoder-sees-answer)=
#
# ### The decoder is fed the character that it shall write
#
# PROSE

# %% tags=["nbval-ignore-output"]
class Unshifted(Reader):
    def forward(self, x, lengths, y):
        return self.step(y, *self.encode(x, lengths))[0]        # the mistake: y_t, not y_{t−1}


cheat = train(splits[0].train, seed, steps=100, kind=Unshifted)
seen, written = with_truth(cheat, splits[0].clean), read(cheat, splits[0].clean)[0]
wrote = np.mean([w == e.iso for w, e in zip(written, splits[0].clean, strict=True)])
print(seen, wrote)

# %% [markdown]
# (mistake-narrow-range)=
#
# ### The test covers what the training covers
#
# PROSE

# %% tags=["nbval-ignore-output"]
probe = never_met(splits[0])[old] + splits[0].clean
dice = np.random.default_rng(seed)
wide = np.arange(date(1000, 1, 1).toordinal(), date(2999, 12, 31).toordinal() + 1)
tested = [date.fromisoformat(e.iso).toordinal() for e in probe] + [*splits[0].test]
widened = train(examples(np.setdiff1d(wide, tested), count, dice), seed)
for name, model in (("narrow", models[0]), ("wide", widened)):
    beyond = [e._replace(text=e.text.replace(e.iso[:4], f"3{e.iso[1:4]}"), iso=f"3{e.iso[1:]}") for e in probe[:40]]
    print(name, [np.mean([w == e.iso for w, e in zip(read(model, part)[0], part, strict=True)])
                 for part in (probe[:40], probe[40:], beyond)])

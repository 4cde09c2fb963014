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
# - put a parser and rules written by hand beside the network, on input as it should be and as it is typed.
#
# It runs in a minute and a half on one CPU thread. You need {doc}`/notebooks/optimization/attention` and, for padded batches,
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
from unicodedata import normalize

import matplotlib.pyplot as plt
import numpy as np
import torch
from babel import Locale
from babel.dates import format_date, get_month_names
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

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-translation-order", "caption": "**The parts change places, and a name becomes a number.** Where each part of the answer (below) stands in the source (above). The weekday is not needed here."}, "image": {"alt": "Two rows of characters. Above: Dienstag, 4. März 2025; below: 2025-03-04. Lines lead from 2025 at the right end of the upper row to 2025 at the left end of the lower one, from März to 03, and from 4 to 04; the lines cross. From Dienstag no line starts."}}
fig, ax = plt.subplots(figsize=(5.6, 2.1))
source, target = "Dienstag, 4. März 2025", "2025-03-04"
for text, y, start in ((source, 1, 0), (target, 0, 6)):
    for k, c in enumerate(text):
        ax.text(start + k, y, c, ha="center", va="center", family="monospace", fontsize=12)
for above, below, colour in (((18, 21), (6, 9), "loss"), ((13, 16), (11, 12), "warning"),
                             ((10, 10), (14, 15), "baseline")):
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
LOCALES = ["en_US", "en_GB", "de", "fr", "es", "pl", "ru", "el", "tr", "fi", "hu", "ja"]
STYLES = ("full", "long", "medium", "short")
FORMATS = {place: Locale.parse(place).date_formats for place in LOCALES}
PATTERN = {(place, style): formats[style].pattern.replace("yy", "y")
           for place, formats in FORMATS.items() for style in STYLES}


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
# `slip` swaps two letters, loses one, doubles one, or puts another of the same word in its place; a last letter it changes by
# a swap only. Digits stay right, since nobody could repair them.
#
# Each example also says for which place the string is meant, or "?" for *not told*. We train on
# {glue:text}`translation-count:,` strings, drawn from the {glue:text}`translation-possible:.1f` million ways to write the days of
# two centuries: one in two is told, and two in three have a slip, if they have a word. **Days are held out whole**: a day of
# the test is in no training string, in no language. Each seed has its own split.

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

# %% tags=["hide-input"]
class Split:
    """Days to learn from, to choose on, to test on; what to train on, and two exams."""

    def __init__(self, seed):
        self.dice = np.random.default_rng((7, seed))
        days = self.dice.permutation(np.arange(FIRST, LAST + 1))
        self.test, self.choose, self.learn = np.split(days, (7000, 10_000))
        self.train = examples(self.learn, count, self.dice)
        self.clean, self.slips = self.exam(self.test)

    def exam(self, days, each=10):
        """Each style of each place ``each`` times; then those with a word, with a slip in it."""
        day = (date.fromordinal(int(d)) for d in self.dice.choice(days, 48 * each))
        clean = [Example(place, write(d, place, style), d.isoformat(), place, style)
                 for place in LOCALES for style in STYLES for _, d in zip(range(each), day, strict=False)]
        slips = [e._replace(text=slip(e.text, self.dice)) for e in clean]
        return clean, [s for s, e in zip(slips, clean, strict=True) if s != e]


splits = [Split(s) for s in seeds]

# %% tags=["hide-input"]
shown = date(2025, 3, 4)
run.table(("4 March 2025", *STYLES), *((place, *(write(shown, place, s) for s in STYLES)) for place in LOCALES))
weekdays = [not any(format_date(date.fromisoformat(e.iso), form, locale=e.place) in e.text
                    for form in ("EEEE", "cccc")) for split in splits for e in split.slips if e.style == "full"]
run.say(weekdays=100 * sum(weekdays) / sum(len(split.slips) for split in splits))
run.say(count=count, possible=(LAST - FIRST + 1) * len(PATTERN) / 1e6, clean=len(splits[0].clean),
        slips=len(splits[0].slips), steps=steps)

# %% [markdown]
# A test has {glue:text}`translation-clean` strings, ten for each place and style, and once more, with a slip each, those that
# have a word to slip in ({glue:text}`translation-slips` in the first split). Of these slips
# {glue:text}`translation-weekdays:.0f` % fall on a weekday, where they do no harm.
#
# ## What would one do without a network?
#
# *A parser.* `dateparser` knows more than two hundred locales, from CLDR as well. It gets a fair chance: language and
# order where they are told; where not, the eleven languages to try, and the order that does best on days set apart for
# choosing. It may **refuse**, which is worth much: a refusal can be asked about, a wrong date goes unnoticed.
#
# *Rules by hand*, some twenty lines, by someone who knows how the strings are made: the numbers in the order of the place, and
# the month whose name is nearest to a word of the string (fewest edits for its length, a swap of neighbours counted as one).

# %%
import dateparser

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
from rapidfuzz import process
from rapidfuzz.distance import OSA


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
# no rival but a limit, **the fewest errors possible**: not told the place, nobody can know what "3/4/2025" means. We know
# how the strings are made, and so how often each reading is meant; who always takes the likeliest errs least often.

# %%
def readings(text, day):
    """The ways to read a string, each with how many (place, style) mean it."""
    days = {day, date(day.year, day.day, day.month) if day.day < 13 else day}
    ways = {d: sum(write(d, *key) == text for key in PATTERN) for d in days}
    return {d: n for d, n in ways.items() if n}


def lost(example):
    """How probable it is that the likeliest reading is not the one that is meant."""
    if any(c.isalpha() for c in example.text):
        return 0.0                                                # a name: one reading
    ways = readings(example.text, date.fromisoformat(example.iso)).values()
    return 1 - max(ways) / sum(ways)

# %% tags=["hide-input"]
from calendar import monthrange


def outcomes(text):
    """What a slip makes of a text, each with its probability."""
    found, words = {}, [m.span() for m in re.finditer(r"[^\W\d_]{3,}", text)]
    for start, end in words:
        letters, weight = text[start:end], 1 / len(words) / (end - 1 - start) / 4
        for k in range(start, end - 1):
            head, a, b, tail = text[:k], text[k], text[k + 1], text[k + 2:]
            others = [(c + b, 1 / len(letters)) for c in letters]
            for middle, share in ((b + a, 1), (b, 1), (a + a + b, 1), *others):
                if middle != a + b:
                    new = head + middle + tail
                    found[new] = found.get(new, 0) + weight * share
    total = sum(found.values())
    return {new: p / total for new, p in found.items()}


def lost_by_slip(example):
    """How probable it is that the likeliest month is not the one that is meant, the place and the style told."""
    day, odds = date.fromisoformat(example.iso), []
    for month in range(1, 13):
        if day.day <= monthrange(day.year, month)[1]:
            other = date(day.year, month, day.day)
            odds.append(outcomes(write(other, example.place, example.style)).get(example.text, 0))
    return 1 - max(odds) / sum(odds)


assert len({(n, m) for names in NAMES.values() for n, m in names.items()}) == len(EVERY)   # no name of two months

# %% tags=["hide-input", "nbval-ignore-output"]
import dateutil.parser
import jiwer


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


RIVALS = {"dateparser": parser, "rules by hand": rules, "dateutil": english}
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
spoilt = [np.mean([lost_by_slip(e) for e in split.slips]) for split in splits]
run.say(tried=len(for_choosing), dmy=chosen[False][0][0], mdy=chosen[False][0][1], ymd=chosen[False][0][2],
        tried_slips=sum(e.text != write(date.fromisoformat(e.iso), e.place, e.style) for e in for_choosing),
        strict=chosen[True][0][0], lax=chosen[True][0][1])

# %% [markdown]
# Of {glue:text}`translation-tried` strings for choosing ({glue:text}`translation-tried-slips` with a slip) dateparser, untold,
# reads {glue:text}`translation-dmy` rightly with the day first, {glue:text}`translation-mdy` with the month and
# {glue:text}`translation-ymd` with the year; told, {glue:text}`translation-strict` with strict parsing and
# {glue:text}`translation-lax` without. We take the day first and strict.
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
# no state has read padding and nothing need be packed. A character that no date has gets the code 1, whose vector is
# never trained: what the network makes of it is chance.

# %%
DIGITS, BEGIN = "0123456789-", 11
A_YEAR = [date.fromordinal(LAST - k) for k in range(0, 365, 4)]
LETTERS = sorted({c for day in A_YEAR for key in PATTERN for c in write(day, *key)})
CODE = {c: k for k, c in enumerate([*LETTERS, "?", *LOCALES], 2)}    # 1 is unknown


def collate(batch):
    """Codes x (B, S), padded with 0, their lengths (B,), what to write y (B, 10)."""
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
# Its cell starts at 0, and $y_0$ is a symbol for "begin". {cite:t}`bahdanau2015neural` ask with $q_{t-1}$ and feed $c_t$ back
# into the decoder; to ask with $q_t$ and not to feed it back, as {cite:t}`luong2015effective` do at their simplest, makes the
# decoder's ten steps one call of PyTorch's LSTM while we train. The answer has ten characters always; where lengths differ, one more symbol says
# "end".

# %%
class Encoder(nn.Module):
    """States h (B, S, 2H), where they are no padding (B, S), the decoder's first."""

    def __init__(self, H):
        super().__init__()
        self.embed = nn.Embedding(len(CODE) + 2, 32, padding_idx=0)
        self.onwards, self.back = (LSTM(32, H, batch_first=True) for _ in range(2))
        self.start = nn.Linear(H, H)

    def forward(self, x, lengths):
        e = self.embed(x)
        back = turned(self.back(turned(e, lengths))[0], lengths)
        q = torch.tanh(self.start(back[:, 0]))[None]            # q₀ = tanh(W h←₁)
        h = torch.cat([self.onwards(e)[0], back], -1)           # h_s = [h→ ; h←]
        return h, length_mask(lengths, x.shape[1]), (q, torch.zeros_like(q))

# %%
class Reader(nn.Module):
    """Reads a date's characters, writes ten."""

    def __init__(self, H):
        super().__init__()
        self.encode = Encoder(H)
        self.feed = nn.Embedding(12, 16)                        # y, or BEGIN
        self.decoder = LSTM(16, H, batch_first=True)
        self.attention = AdditiveAttention(H, 2 * H, H)
        self.head = nn.Linear(3 * H, 11)

    def step(self, fed, h, mask, state):
        """Scores (B, T, 11) after the characters fed (B, T); the state; α (B, T, S)."""
        q, state = self.decoder(self.feed(fed), state)          # q_t
        context, weights = self.attention(q, h, mask=mask)      # c_t = Σ α h
        return self.head(torch.cat([q, context], -1)), state, weights

    def forward(self, x, lengths, y):
        """Teacher forcing: the scores of each y_t, the true ones before it given."""
        begin = torch.full_like(y[:, :1], BEGIN)
        return self.step(torch.cat([begin, y[:, :-1]], 1), *self.encode(x, lengths))[0]

# %% [markdown]
# **Teacher forcing**: in training the decoder is fed the *true* character before, whatever it would have written itself. The
# loss is the mean of $-\log p(y_t \mid y_1 \dots y_{t-1}, x)$, the logarithm of {eq}`eq-translation-chain` with its sign
# turned, per character. Strings of about equal length share a batch, so that little is
# padded; {glue:text}`translation-steps` steps of 64 are {glue:text}`translation-epochs:.1f` epochs, for
# {glue:text}`translation-numbers:,` parameters. Rate and size were set once, in trials on another split.

# %%
def batches(strings, size, dice):                  # of about equal length, for ever
    while True:
        order = sorted(strings, key=lambda e: (len(e.text), dice.random()))
        cut = [order[k:k + size] for k in range(0, len(order), size)]
        for k in dice.permutation(len(cut)):
            yield collate(cut[k])


def train(model, strings, seed, steps=steps, lr=0.008):
    adam = torch.optim.Adam(model.parameters(), lr)
    data = batches(strings, 64, np.random.default_rng(seed))
    for step, batch in zip(range(steps), data, strict=False):
        x, lengths, y = (part.to(run.device) for part in batch)
        rate = lr * min(1, (step + 1) / 50, 2 * (1 - step / steps))
        adam.param_groups[0]["lr"] = rate                       # up, then down to 0
        loss = cross_entropy(model(x, lengths, y).transpose(1, 2), y)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    return model.eval()

# %%
def fresh(seed, kind=Reader):
    torch.manual_seed(seed)
    return kind(hidden_size).to(run.device)

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
        fed = scores.argmax(-1)                                 # its own (B, 1)
        if prefix is not None and t < prefix.shape[1]:
            fed = prefix[:, t:t + 1]                            # ours, to experiment
        log_p = scores.log_softmax(-1).gather(-1, fed[..., None])
        total = total + log_p.flatten()
        written.append(fed)
        looked.append(weights)
    return torch.cat(written, 1), total, torch.cat(looked, 1)

# %% tags=["hide-input"]
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
models = [train(fresh(s), split.train, s)
          for split, s in zip(splits, seeds, strict=True)]

# %% tags=["hide-input", "nbval-ignore-output"]
ours = {("the network", part, told): [read(model, getattr(split, part), told)[0]
                                      for model, split in zip(models, splits, strict=True)]
        for part in ("clean", "slips") for told in (True, False)}

# %% [markdown]
# ## How often is it right?

# %% tags=["hide-input", "nbval-ignore-output"]
found = ours | theirs
figures = {key: np.array([score(f, getattr(split, key[1])) for f, split in zip(value, splits, strict=True)])
           for key, value in found.items()}               # (splits, 3): wrong, refused, characters
READERS = ("the network", *RIVALS)


def cells(name, told):
    for part in ("clean", "slips"):
        wrong, refused, _ = figures[name, part, told].T
        yield from (ranged(wrong, 1), "never" if name == "the network" else ranged(refused, 1))
    yield ranged(figures[name, "slips", told][:, 2], 1)


run.table(("per cent, median (range) of the splits", "as written: wrong", "refused", "with a slip: wrong",
           "refused", "characters wrong (of a refusal: all)"),
          *((f"{name}, {'told the place' if told else 'not told'}", *cells(name, told))
            for told in (True, False) for name in READERS if told or name != "dateutil"),
          ("the fewest errors possible (expected), told", "0.0", "", ranged(100 * np.array(spoilt), 1), "", ""),
          ("the fewest errors possible (expected), not told", ranged(100 * np.array(unknowable), 1), *[""] * 4),
          ("the most frequent date", "100.0", "", "", "", ""))


def bad(name, part, told):
    """Wrong or refused, of all splits together."""
    return sum(f != e.iso for split, fs in zip(splits, found[name, part, told], strict=True)
               for f, e in zip(fs, getattr(split, part), strict=True))


strings = {part: sum(len(getattr(split, part)) for split in splits) for part in ("clean", "slips")}
over_parser = bad("the network", "slips", True) / bad("dateparser", "slips", True)
over_rules = bad("the network", "slips", True) / max(1, bad("rules by hand", "slips", True))
over_untold = bad("the network", "clean", True) / max(1, bad("the network", "clean", False))
parser_wrong = sum(f not in (None, e.iso)
                   for split, fs in zip(splits, found["dateparser", "slips", True], strict=True)
                   for f, e in zip(fs, split.slips, strict=True))
expected = sum(u * len(split.clean) for u, split in zip(unknowable, splits, strict=True))
over_ceiling = bad("the network", "clean", False) / expected
run.say(over_rules=over_rules, over_parser=100 * over_parser, clean_all=strings["clean"],
        slips_all=strings["slips"], epochs=steps * 64 / count, expected=expected,
        numbers=sum(p.numel() for p in models[0].parameters()),
        splits=len(splits), parser_wrong=parser_wrong,
        spoilt=sum(u * len(split.slips) for u, split in zip(spoilt, splits, strict=True)),
        over_floor=over_ceiling,
        **{f"bad_{who}_{part}_{how}": bad(name, part, told) for who, name in zip(
            ("net", "parser", "rules"), READERS[:3], strict=True) for part in ("clean", "slips")
           for how, told in (("told", True), ("untold", False))})

# %% tags=["hide-input", "nbval-ignore-output"]
assert figures["the network", "clean", True][:, 0].max() < 2              # exact match, place told: 98 % and more
run.claim("A31", f"dates of twelve places, unseen days, {budget}: misses if the place is told, over those if not",
          over_untold, below=0.4)
run.claim("A31", f"dates with a slip, {budget}, place told: wrong, over dateparser's wrong or refused",
          over_parser, below=0.1)
run.claim("A31", f"dates with a slip, {budget}, place told: wrong, over those of rules by hand",
          over_rules, within=(1.2, 10))
run.claim("A31", f"dates, {budget}, place not told: wrong, over the fewest to be expected of any reader",
          over_ceiling, below=3)

# %% tags=["hide-input", "nbval-ignore-output"]
missed = [(e, wrote, rule) for split, ws, rs in zip(splits, found["the network", "slips", True],
                                                    found["rules by hand", "slips", True], strict=True)
          for e, wrote, rule in zip(split.slips, ws, rs, strict=True) if wrote != e.iso]
run.table(("place", "read", "meant", "the network", "the rules"),
          *((e.place, e.text, e.iso, wrote, rule or "refused") for e, wrote, rule in missed[:5]))
by = {name: [sum(f != e.iso and getattr(e, field) == value for split, fs in zip(splits, found[name, "slips", True],
                                                                              strict=True)
                 for f, e in zip(fs, split.slips, strict=True))
             for field, values in (("place", LOCALES), ("style", STYLES[:3])) for value in values]
      for name in READERS[:1] + READERS[2:3]}
run.table((f"with a slip, wrong of {strings['slips']:,}", *LOCALES, *STYLES[:3]),
          *((name, *counts) for name, counts in by.items()))
run.say(rules_right=sum(rule == e.iso for e, _, rule in missed), net_missed=len(missed))

# %% [markdown]
# *As written*, the place told, there is nothing to choose between the three: of {glue:text}`translation-clean-all:,` strings about
# days that no training string spoke of, the network misses {glue:text}`translation-bad-net-clean-told`, dateparser
# {glue:text}`translation-bad-parser-clean-told` and the rules {glue:text}`translation-bad-rules-clean-told`. *Not told*,
# {glue:text}`translation-expected:.1f` errors are to be expected of the best reader there can be. Dateparser has
# {glue:text}`translation-bad-parser-clean-untold`, the rules have {glue:text}`translation-bad-rules-clean-untold`, and the network has
# {glue:text}`translation-bad-net-clean-untold`, or {glue:text}`translation-over-floor:.1f` times as many as must be.
#
# *With a slip*, dateparser fails in {glue:text}`translation-bad-parser-slips-told` of {glue:text}`translation-slips-all`
# cases, told: it refuses, and has {glue:text}`translation-parser-wrong` wrong dates. The network, which has met such strings,
# always answers and is wrong in {glue:text}`translation-bad-net-slips-told`. Rules that know the months' names and count edits
# are wrong in {glue:text}`translation-bad-rules-slips-told`, where {glue:text}`translation-spoilt:.1f` errors are to be expected of
# the best reader: "Jn" may be January or June. (Such ties the rules break by the order of the names.) So **the network
# needed only examples**, nobody told it names, orders or edits; and **who knows how the strings are made writes it down and
# errs less**, on these strings, against these {glue:text}`translation-steps` steps.
#
# Of the {glue:text}`translation-net-missed` strings that the network misses, the rules read
# {glue:text}`translation-rules-right` rightly. Even a weekday may tell: 20 July 1995 was a Thursday, 20 June was not. Neither
# of the two computes that.
#
# ## Where does it look?

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"name": "fig-translation-weights", "caption": "**The weights go where the parts stand.** Each row is a character written, each column one read, the first of them the place that is told; from white, no weight, to dark red, all of it. A year, first or last, is looked up digit by digit, and so is the day; while the month is written, the weight is on letters of its name and partly elsewhere; a hyphen needs no look, and its weight is spread. First network."}, "image": {"alt": "Two maps of weights, one above the other, with ten rows each for the characters of the answer. In the upper, a German date with its weekday, dark cells of the year run down a diagonal at the right end, the weight of the month's two rows is spread over some cells, most of them in its name, and the day's rows are dark at the digits left of the name. In the lower, a Hungarian date, the year's diagonal stands at the left end, then come the month and the day's digits, and the weekday at the right end stays light. The rows of the hyphens are pale and spread."}}
of = {place: [e for e in splits[0].clean if (e.place, e.style) == (place, "full")] for place in ("de", "hu")}
pictures = [of["de"][0], next(e for e in of["hu"] if e.iso[5:7] != of["de"][0].iso[5:7])]
fig, axes = plt.subplots(2, 1, figsize=(5.6, 4.8))
for ax, example in zip(axes, pictures, strict=True):
    written, _, looked = greedy(models[0], *asked([example])[:2])
    ax.imshow(looked[0].cpu(), cmap="Reds", vmin=0, vmax=1, aspect="auto")
    ax.set(xticks=range(len(example.text) + 1), yticks=range(10), ylabel="written")
    ax.set_xticklabels([f"\n{example.place}", *example.text])
    ax.set_yticklabels(spelt(written)[0])
    ax.grid(False)
axes[1].set(xlabel="read (first the place that was told)")
plt.show()

# %% tags=["hide-input", "nbval-ignore-output"]
def looks_at(model, exam):
    """While the year is written: the largest weight on the digit to write; all on the year; and by chance."""
    x, lengths, _ = asked(exam)
    looked = greedy(model, x, lengths)[2][:, :4].cpu()                  # (B, 4, S)
    start = torch.tensor([1 + e.text.index(e.iso[:4]) for e in exam])
    digits = start[:, None] + torch.arange(4)                           # (B, 4)
    on_year = looked.gather(2, digits[:, None].expand(-1, 4, -1)).sum(-1).mean().item()
    exact = (looked.argmax(-1) == digits).float().mean().item()
    return 100 * exact, 100 * on_year, 100 * (4 / lengths.cpu()).mean().item()


looks = np.array([looks_at(model, split.clean) for model, split in zip(models, splits, strict=True)])
run.say(exact=ranged(looks[:, 0]), on_year=ranged(looks[:, 1]), even=np.mean(looks[:, 2]))
assert looks[:, 1].min() > 80 > 40 > looks[:, 2].max()

# %% [markdown]
# The weights follow the parts ({numref}`fig-translation-weights`). Over all strings as written, while the four digits of the year are
# written, {glue:text}`translation-on-year` % of the weight lies on the year in the source (median and range of the
# networks; an even spread would put {glue:text}`translation-even:.0f` % there). The largest weight is on the very digit to
# be written in {glue:text}`translation-exact` % of the steps. It need not be: its neighbours'
# states have read it, too. For the same reason weights do not tell which letters of a name decide.
#
# ## What does an error in the prefix do?
#
# In training the prefix was always true. Afterwards it is the decoder's own, and what it makes of a wrong one it was never
# taught: {term}`exposure bias` {cite:p}`ranzato2016sequence`. {cite:t}`bengio2015scheduled` therefore feed some of the
# network's own symbols in training (*scheduled sampling*).
#
# In whole answers, read greedily, **nothing of it can be seen**: up to its first error the own prefix *is* the true one, so that
# an answer is right under teacher forcing if and only if it is right without (the assert below). The bias can only show
# after a first error. So we plant one, and count how often all later digits are right.

# %%
def after_error(model, exam, t, shift):
    """The share with all digits after y_t right, if y_t is moved on by ``shift``."""
    x, lengths, y = asked(exam)
    prefix = y[:, :t + 1].clone()
    prefix[:, t] = (prefix[:, t] + shift) % 10
    written = greedy(model, x, lengths, prefix)[0]
    return 100 * (written == y)[:, t + 1:].all(1).float().mean().item()

# %% tags=["hide-input", "nbval-ignore-output"]
def with_truth(model, exam):
    """Right with the true prefix, in per cent: whole strings, characters."""
    x, lengths, y = asked(exam)
    with torch.no_grad():
        right = model(x, lengths, y).argmax(-1) == y
    return 100 * right.all(1).float().mean().item(), 100 * right.float().mean().item()


forced = np.array([with_truth(model, split.slips) for model, split in zip(models, splits, strict=True)])
own = np.array([[100 * np.mean([f == e.iso for f, e in zip(fs, split.slips, strict=True)]),
                 100 * np.mean([a == b for f, e in zip(fs, split.slips, strict=True)
                                for a, b in zip(f, e.iso, strict=True)])]
                for fs, split in zip(found["the network", "slips", True], splits, strict=True)])
assert np.allclose(forced[:, 0], own[:, 0])
BEFORE = [0, 1, 2, 3, 5, 6, 8]                                      # the last digit has no later one
planted = np.array([[after_error(model, split.clean, t, 1) for t in BEFORE]
                    for model, split in zip(models, splits, strict=True)])
noughts, known = [], []                # after a 2 for the 1 of 19.. ; after a 1 for the 0 of the months 01 to 09
for model, split in zip(models, splits, strict=True):
    x, lengths, y = asked([e for e in split.clean if e.iso[0] == "1"])
    noughts.append(100 * (greedy(model, x, lengths, y[:, :1] + 1)[0][:, 1] == 0).float().mean().item())
    x, lengths, y = asked([e for e in split.clean if e.iso[5] == "0"])
    y[:, 5] = 1
    known.append(100 * (greedy(model, x, lengths, y[:, :6])[0][:, 6] < 3).float().mean().item())
run.say(forced_characters=ranged(forced[:, 1], 2), own_characters=ranged(own[:, 1], 2),
        noughts=ranged(noughts), known=ranged(known),
        planted_first=ranged(planted[:, 0]), planted_others=ranged(np.delete(planted, (0, 4), 1).min(1)),
        planted_month=ranged(planted[:, 4]))

# %% tags=["hide-input", "nbval-ignore-output"] mystnb={"figure": {"name": "fig-translation-planted", "caption": "**An error in the first digit of the year or of the month can spoil what follows, elsewhere hardly.** One digit is made one larger (a 9 becomes a 0), the first of the year (Y1) to the first of the day (D1); how many of the strings have all later digits right. Strings as written, place told; median and range of the networks."}, "image": {"alt": "Seven bars, Y1 to Y4, M1, M2 and D1. Those of Y2, Y3, Y4, M2 and D1 reach 100 per cent or nearly. Those of Y1 and M1 are clearly lower, near 50 per cent; the range of Y1 is wide."}}
fig, ax = plt.subplots(figsize=(5.6, 2.6))
middle, low, high = (f(planted, axis=0) for f in (np.median, np.min, np.max))
ax.bar(range(7), middle, yerr=(middle - low, high - middle), color=COLOUR["baseline"], width=0.6,
       error_kw={"ecolor": COLOUR["warning"], "capsize": 3})
ax.set_xticks(range(7), ["Y1", "Y2", "Y3", "Y4", "M1", "M2", "D1"])
ax.set(xlabel="the digit that is made wrong", ylabel="all later right (%)", ylim=(0, 105))
plt.show()

# %% [markdown]
# In most places nothing ({numref}`fig-translation-planted`): the decoder looks the other digits up in the source. After an
# error in the second to fourth digit of the year, the second of the month or the first of the day, all later digits are right in
# {glue:text}`translation-planted-others` % of the strings (the worst of these places; median and range of the networks). After
# one in the first digit of the year it is {glue:text}`translation-planted-first` %, in the first of the month
# {glue:text}`translation-planted-month` %. There the prefix told something in training: a 1 was followed by a 9
# in the year and by 0, 1 or 2 in the month, a 2 by a 0. Plant a 2 in the years 1900 to 1999, and a 0 follows in
# {glue:text}`translation-noughts` % of the strings; plant a 1 in the months 01 to 09, and 0, 1 or 2 follow in
# {glue:text}`translation-known` %, though of these months only 01 and 02 have such a digit there. That a prefix outvotes the source
# where it used to help is our guess, and not the whole story: a 3 planted in a day, which only 0 and 1 have followed,
# does no harm.
#
# First errors are rare: of the characters {glue:text}`translation-own-characters` % are right after the own prefix and
# {glue:text}`translation-forced-characters` % after the true one, on strings with a slip. To *these* networks exposure costs
# no more than this difference; what scheduled sampling would train instead we have not tried.
#
# **Greedy, or a beam?** {term}`Beam search <beam search>` keeps the best `width` beginnings, lets each grow by all
# eleven characters, and keeps the best of these.

# %%
@torch.no_grad()
def beam(model, x, lengths, width):
    """The likeliest answers that it finds (B, width, 10), and log p of each."""
    h, mask, state = model.encode(x, lengths)
    h, mask = (v.repeat_interleave(width, 0) for v in (h, mask))
    state = tuple(v.repeat_interleave(width, 1) for v in state)
    rows = torch.arange(len(x), device=x.device)[:, None]
    written = torch.full((len(x), width, 1), BEGIN, device=x.device)
    total = torch.full((len(x), width), -torch.inf, device=x.device)
    total[:, 0] = 0                                     # all begin alike: one counts
    for _ in range(10):
        scores, state, _ = model.step(written[..., -1:].flatten(0, 1), h, mask, state)
        grown = total[..., None] + scores.log_softmax(-1).view(len(x), width, -1)
        total, best = grown.flatten(1).topk(width)              # of width · 11
        parent = best // 11                                     # whose child it is
        state = tuple(v[:, (rows * width + parent).flatten()] for v in state)
        written = torch.cat([written[rows, parent], best[..., None] % 11], -1)
    return written[..., 1:], total

# %% tags=["hide-input", "nbval-ignore-output"]
change = []                                # with another answer; right: greedy, beam, any of the beam
for model, split in zip(models, splits, strict=True):
    x, lengths, y = asked(split.slips)
    one, several = greedy(model, x, lengths)[0], beam(model, x, lengths, 4)[0]
    assert torch.equal(beam(model, x[:99], lengths[:99], 1)[0][:, 0], one[:99])     # a width of 1 is greedy
    right = (several == y[:, None]).all(-1)                                         # (B, 4)
    change.append([v.sum().item() for v in ((one != several[:, 0]).any(1), (one == y).all(1), right[:, 0],
                                            right.any(1))])
changed, by_greedy, by_beam, in_beam = np.sum(change, 0)
run.say(changed=int(changed), by_greedy=int(by_greedy), by_beam=int(by_beam), in_beam=int(in_beam))

# %% [markdown]
# On the strings with a slip a beam of 4 changes {glue:text}`translation-changed` answers of
# {glue:text}`translation-slips-all`: {glue:text}`translation-by-greedy` are right by greedy decoding,
# {glue:text}`translation-by-beam` by the beam. The right answer is *among* its four in {glue:text}`translation-in-beam`,
# which is what a program that asks back would show.
#
# ## What can it not know?
#
# Day and month are ambiguous where both are below 13 and differ. Not told the place, the best one can do is to know the
# odds: for "3/4/2025" the day comes first with 2/3, as in our example; for "11/12/2025", which British and French write,
# too, with 4/5; and "03/04/2025" no American of ours writes. We compare the network's probability of one reading, among
# both, with those odds; and we look at what it writes.

# %% tags=["hide-input", "nbval-ignore-output"]
def two_ways(split, belongs, n=60):
    """Test days that are another day if read the other way round, each with that one."""
    days = (date.fromordinal(int(d)) for d in split.test)
    both = ((d, date(d.year, d.day, d.month)) for d in days if d.day < 13 and d.day != d.month)
    return [pair for _, pair in zip(range(n), (pair for pair in both if belongs(pair[0])), strict=False)]


def exam_of(texts, told, days):
    return asked([Example(told, t, d.isoformat(), "", "") for t, d in zip(texts, days, strict=True)])


@torch.no_grad()
def probabilities(model, texts, told, days):
    """p(y | x) of one way to read each string, (B,)."""
    x, lengths, y = exam_of(texts, told, days)
    return model(x, lengths, y).log_softmax(-1).gather(-1, y[..., None]).sum((1, 2)).exp().cpu().numpy()


def mixed(model, split):
    """Untold, per cent: day first, month first, a mixture, other; the day follows a planted month."""
    days, others = zip(*two_ways(split, lambda d: min(d.day, d.month) < 10), strict=True)
    texts = [write(d, "es", "short") for d in days]
    (x, lengths, y), z = exam_of(texts, "?", days), exam_of(texts, "?", others)[2]
    one = greedy(model, x, lengths)[0]
    is_y, is_z = ((one == v).all(1) for v in (y, z))
    month = (one[:, 5:7] == y[:, 5:7]).all(1)
    another = torch.where(month[:, None], z, y)                     # the reading of the other month
    led = greedy(model, x, lengths, another[:, :7])[0]
    either = month | (one[:, 5:7] == z[:, 5:7]).all(1)
    mixture = (one[:, :5] == y[:, :5]).all(1) & either & (one[:, 5:7] == one[:, 8:]).all(1)      # 03-03, 04-04
    other = ~(is_y | is_z | mixture)
    return [100 * v.float().mean().item() for v in (is_y, is_z, mixture, other, (led == another).all(1))]


doubtful = {"3/4/2025": ("es", lambda d: min(d.day, d.month) < 10),
            "11/12/2025": ("es", lambda d: min(d.day, d.month) > 9),
            "03/04/2025": ("fr", lambda d: min(d.day, d.month) < 10)}
first, meant = {}, {}
for kind, (place, belongs) in doubtful.items():
    for model, split in zip(models, splits, strict=True):
        days, others = zip(*two_ways(split, belongs), strict=True)
        texts = [write(d, place, "short") for d in days]
        ways = readings(texts[0], days[0])
        meant[kind] = ways[days[0]] / sum(ways.values())
        for told in ("?", "en_US", "es"):
            p, q = (probabilities(model, texts, told, d) for d in (days, others))
            first.setdefault((kind, told), []).append(p / (p + q))
single = {kind: np.quantile(np.concatenate(first[kind, "?"]), (0.05, 0.95)) for kind in doubtful}
run.table(("probability that the day is first", "odds, as the strings are made", "not told: mean",
           "not told: 5 to 95 % of the strings", "told en_US: mean", "told es: mean"),
          *((kind, f"{meant[kind]:.2f}", ranged([v.mean() for v in first[kind, "?"]], 2),
             "–".join(f"{v:.2f}" for v in single[kind]),
             *(ranged([v.mean() for v in first[kind, told]], 2) for told in ("en_US", "es")))
            for kind in doubtful))

# %% [markdown]
# Told, it is sure, even where it is told en_US and reads noughts. Untold, its mean for "3/4/2025" is
# {glue:text}`translation-mean-first`, where the odds are .67, and the single string gets nearly anything. And what does it write? The
# example at the top said that a writer who has put down the month knows the day. The chain rule permits that; has it been
# learned? Untold strings of this kind are few. So there is a control: {glue:text}`translation-extra` steps more, on
# short strings of three places, untold, and nothing else.

# %% tags=["hide-input", "nbval-ignore-output"]
from copy import deepcopy

extra, rows = 150, []
for model, split, s in zip(models, splits, seeds, strict=True):
    days = [date.fromordinal(int(d)) for d in split.dice.choice(split.learn, 4000)]
    places = split.dice.choice(["en_US", "es", "el"], 4000)
    short = [Example("?", write(d, p, "short"), d.isoformat(), p, "short")
             for d, p in zip(days, places, strict=True)]
    rows.append((mixed(model, split), mixed(train(deepcopy(model), short, s, extra, 0.004), split)))
rows = np.array(rows)                                               # (splits, 2, 5)
run.table(("3/4/2025, not told, per cent", "day first", "month first", "a mixture", "another date",
           "the other month planted: the day follows"),
          *((name, *(ranged(rows[:, k, j]) for j in range(5)))
            for k, name in enumerate(("as trained", f"{extra} steps on such strings"))))
run.say(extra=extra, mixture=ranged(rows[:, 0, 2]), follows=ranged(rows[:, 0, 4]),
        mixture_after=ranged(rows[:, 1, 2]), follows_after=ranged(rows[:, 1, 4]),
        mean_first=ranged([v.mean() for v in first["3/4/2025", "?"]], 2))
assert np.median(rows[:, 1, 4]) > np.median(rows[:, 0, 4])

# %% [markdown]
# As trained, the networks write a mixture, the same number for month and day, for {glue:text}`translation-mixture` % of these
# strings, and if the month of the other reading is planted, the day follows in {glue:text}`translation-follows` %. After the extra
# steps it is {glue:text}`translation-mixture-after` and {glue:text}`translation-follows-after` %: more such strings, or more
# steps (the control does not tell them apart), teach the decoder to follow its month better, if not perfectly. Who wrote the
# string no number of examples tells.
#
# ## What has it never met?
#
# A network always writes something. So we let it refuse, if what it wrote is no date, or if $p(y \mid x)$ is below a
# threshold: the one that refuses one in twenty of the strings with a slip on the days for choosing.

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
NEVER = "0000-00-00"                                                # what is right where there is no date


def moved(day, year):
    """The same day in another year, as far as that has it."""
    return date(year, day.month, min(day.day, 28))


def ordinal(n):
    return f"{n}{'th' if 10 < n < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def never_met(split, n=48):
    """Kinds of strings that are in no training, each as an exam."""
    days = [date.fromordinal(int(d)) for d in split.dice.choice(split.test, n)]
    old, new, feb = ([moved(d, year(d)) for d in days] for year in (
        lambda d: d.year - 200, lambda d: 2000 + d.year % 50, lambda d: 1900 + d.year % 28))

    def long(days, change=lambda text, d: text, right=lambda d: d.isoformat()):
        return [Example(w, change(write(d, w, "long"), d), right(d), w, "")
                for w, d in zip(LOCALES * (n // 12), days, strict=True)]

    def given(place, texts, days):
        return [Example(place, t, d.isoformat(), place, "") for t, d in zip(texts, days, strict=True)]

    return {
        "years 1700 to 1899": long(old),
        "in capitals": long(days, lambda text, d: text.upper()),
        "March 4th, 2025": given("en_US", [f"{NAME[d.month]} {ordinal(d.day)}, {d.year}" for d in days], days),
        "4-Mar-2025": given("en_GB", [f"{d.day}-{NAME[d.month][:3]}-{d.year}" for d in days], days),
        "2025-03-04": given("ja", [d.isoformat() for d in days], days),
        "04.03.25, for 2025": given("de", [d.strftime("%d.%m.%y") for d in new], new),
        "30 or 31 February": long([d.replace(month=2, day=28) for d in feb],
                                  lambda text, d: text.replace("28", str(30 + d.year % 2)), lambda d: NEVER),
        "no date": [Example("en_GB", text, NEVER, "en_GB", "") for text in (
            "12 eggs, 3 litres of milk", "Flight LH 441, seat 12 C", "+44 20 7946 0958", "Bach, BWV 1007",
            "Room 2025, 3rd floor", "Louis XIV", "to be announced", "3.14159265")],
    }


def outcome(answers, exam):
    """Right, wrong, refused in per cent."""
    right = np.mean([f == e.iso for f, e in zip(answers, exam, strict=True)])
    refused = np.mean([f is None for f in answers])
    return 100 * np.array([right, max(0, 1 - right - refused), refused])


NAME = get_month_names("wide", "format", "en")
kinds, trusting, copied, unmet = {}, {}, [], [never_met(split) for split in splits]
for model, split, threshold, new in zip(models, splits, thresholds, unmet, strict=True):
    for kind, exam in ({"as written": split.clean, "with a slip": split.slips} | new).items():
        plain = read(model, exam)[0]
        parsed = [parser(e.text, e.place) for e in exam]
        kinds.setdefault(kind, []).append([outcome(careful(model, exam, threshold), exam), outcome(parsed, exam)])
        trusting.setdefault(kind, []).append(outcome(plain, exam)[0])
        if "February" in kind:
            copied.append(100 * np.mean([text[5:] in ("02-30", "02-31") for text in plain]))
run.table(("place told, per cent, mean of the splits", "the network, if it never refuses: right",
           "if it may: right", "wrong", "refused", "dateparser: right", "wrong", "refused"),
          *((kind, "–" if kind in ("30 or 31 February", "no date") else f"{np.mean(trusting[kind]):.0f}",
             *(f"{v:.0f}" for v in np.mean(kinds[kind], 0).ravel())) for kind in kinds))
OLD = "years 1700 to 1899"
assert min(theirs[0] for _, theirs in kinds[OLD]) > 95
run.say(copied=ranged(copied), old=ranged(trusting[OLD]), iso=ranged(trusting["2025-03-04"]),
        hyphens=ranged(trusting["4-Mar-2025"]),
        short_wrong=ranged([ours[1] for ours, _ in kinds["04.03.25, for 2025"]]),
        old_wrong=ranged([ours[1] for ours, _ in kinds[OLD]]), ordinal=ranged(trusting["March 4th, 2025"]),
        capitals=ranged(trusting["in capitals"]))
run.claim("A31", f"dates in the {OLD}, after {budget} of 1900 to 2099, place told: share right, median split",
          np.median(trusting[OLD]) / 100, below=0.8)

# %% [markdown]
# The networks differ (median and range): known characters in a new order, "March 4th, 2025", they read in
# {glue:text}`translation-ordinal` %, "4-Mar-2025", with an unknown hyphen, in {glue:text}`translation-hyphens` %, "2025-03-04",
# which need only be copied, in {glue:text}`translation-iso` %, and capitals in {glue:text}`translation-capitals` %. Two-digit
# years ask for a convention that no example showed; {glue:text}`translation-short-wrong` % are believed and wrong. Years of other centuries are right in
# {glue:text}`translation-old` %, where dateparser is right in nearly all, and {glue:text}`translation-old-wrong` % are believed and
# wrong: the threshold is no fence. 31 February is copied out in {glue:text}`translation-copied` % of the cases, and the check
# refuses it: the calendar is there, not in the network.
#
# ## Using it
#
# Beside the weights one needs the code of the symbols and the few functions above. We write both into a folder, and call them
# from a plain script.

# %%
def predict(model, text, place="?", threshold=-np.inf):
    """The date in a string of yours, None where it is none or log p too low; log p."""
    if place != "?" and place not in LOCALES:
        raise ValueError(f"place must be one of {LOCALES} or '?', got {place!r}")
    x = torch.tensor([[CODE.get(c, 1) for c in (place, *normalize("NFKC", text))]])
    x = x.to(next(model.parameters()).device)
    written, log_p, _ = greedy(model, x, torch.full_like(x[:, 0], x.shape[1]))
    text, log_p = spelt(written)[0], log_p.item()
    return (text if is_date(text) and log_p >= threshold else None), log_p

# %%
import sys
from inspect import getsource, isfunction
from pathlib import Path
from subprocess import check_output
from tempfile import TemporaryDirectory


def code_of(kind):
    methods = (getsource(f) for f in vars(kind).values() if isfunction(f))
    return "\n".join([f"class {kind.__name__}(nn.Module):", *methods])


module = "\n".join([
    "import sys, torch, numpy as np", "from datetime import date",
    "from unicodedata import normalize", "from torch import nn",
    "from lstm_lib import LSTM, checkpoints",
    "from lstm_lib.attention import AdditiveAttention, length_mask",
    *(f"{k} = {globals()[k]!r}" for k in ("LOCALES", "CODE", "DIGITS", "BEGIN")),
    code_of(Encoder), code_of(Reader),
    *map(getsource, (turned, greedy, spelt, is_date, predict)),
    f"model = Reader({hidden_size})", "checkpoints.load(model, sys.argv[1])",
    f"print(predict(model, *sys.argv[2:], threshold={thresholds[0]:.3f}))"])

# %% tags=["nbval-ignore-output"]
yours = ["4. Mräz 2025", "de"]                      # any string, and a place or "?"
with TemporaryDirectory() as folder:
    weights, program = Path(folder, "dates.pt"), Path(folder, "dates.py")
    checkpoints.save(models[0], weights)
    program.write_text(module, encoding="utf-8")
    print(check_output([sys.executable, program, weights, *yours], text=True))

# %% [markdown]
# ## What goes wrong
#
# (mistake-decoder-sees-answer)=
#
# ### The decoder is fed what it shall write
#
# Teacher forcing needs the target twice: as what to write, and *one step later* as what was written. Forget the shift, and
# the character to be written is at hand. The loss falls at once, and no error is raised.

# %%
class Unshifted(Reader):
    def forward(self, x, lengths, y):
        return self.step(y, *self.encode(x, lengths))[0]        # the mistake: y itself

# %% tags=["hide-input", "nbval-ignore-output"]
few = 100
cheat, honest = (train(fresh(seed, kind), splits[0].train, seed, few) for kind in (Unshifted, Reader))
rows = []
for name, model in ((f"unshifted, {few} steps", cheat), (f"shifted, {few} steps", honest),
                    (f"shifted, {steps} steps", models[0])):
    written = read(model, splits[0].clean)[0]
    rows.append((name, *with_truth(model, splits[0].clean),
                 100 * np.mean([w == e.iso for w, e in zip(written, splits[0].clean, strict=True)])))
run.table(("first split, per cent right", "given the target: whole dates", "characters",
           "on its own: whole dates"),
          *((name, *(f"{v:.1f}" for v in values)) for name, *values in rows))
assert all(abs(given - alone) < 0.01 for _, given, _, alone in rows[1:])       # the identity, where nothing leaks
assert rows[0][1] > 90 > 10 > rows[0][3]

# %% [markdown]
# Given the target, the one that sees its answer looks finished; on its own it writes nothing of use. *Repair:* shift, and
# judge a decoder by what it writes on its own. Whole answers must be right equally often both ways, as derived above; if
# they are not, something leaks.
#
# (mistake-narrow-range)=
#
# ### The test goes only where the training went
#
# Held-out days sound strict. But each digit of theirs has been in training at its place, and so has every year. The
# {glue:text}`translation-clean-all:,` strings as written, with hardly an error, said nothing about the year 1789. *Repair:* let
# the training go farther than the use: as many strings, of the years 1000 to 2999 (one network).

# %% tags=["hide-input", "nbval-ignore-output"]
probe = unmet[0][OLD]
wide = np.arange(date(1000, 1, 1).toordinal(), date(2999, 12, 31).toordinal() + 1)
tested = [*splits[0].test, *(date.fromisoformat(e.iso).toordinal() for e in probe)]
widened = train(fresh(seed), examples(np.setdiff1d(wide, tested), count, splits[0].dice), seed)
def of_3000(exam):
    return [e._replace(text=e.text.replace(e.iso[:4], f"3{e.iso[1:4]}"), iso=f"3{e.iso[1:]}") for e in exam]


shares = np.array([[100 * np.mean([w == e.iso for w, e in zip(read(model, exam)[0], exam, strict=True)])
                    for exam in (split.clean, new[OLD], of_3000(new[OLD]))]
                   for model, split, new in zip([*models, widened], [*splits, splits[0]], [*unmet, unmet[0]],
                                                strict=True)])
run.table(("place told, per cent right", "1900 to 2099", "1700 to 1899", "3700 to 3899"),
          (f"{len(models)} networks, trained on 1900 to 2099", *(ranged(v) for v in shares[:-1].T)),
          ("one network, trained on 1000 to 2999", *(f"{v:.0f}" for v in shares[-1])))
run.say(wide_old=shares[-1, 1], wide_beyond=shares[-1, 2])

# %% [markdown]
# Trained on twenty centuries, it reads {glue:text}`translation-wide-old:.0f` % of the old years rightly. We had expected a new
# border behind 2999; but of the years 3700 to 3899, whose first digit no training year has, {glue:text}`translation-wide-beyond:.0f` %
# come out right. Our guess: between two centuries the first digits are sooner learned as a choice than as digits to be copied.
#
# ## Exercises
#
# ::::{exercise} Ask back
# :label: translation-both
#
# A program shall show both readings of "3/4/2025" with their probabilities. Take the two best of a beam; then the network's
# probability of each reading; then the odds. Which would you show?
#
# :::{admonition} Hint
# :class: dropdown
# `probabilities(models[0], texts, "?", days)` has a reading's $p$ by {eq}`eq-translation-chain`; `readings` counts.
# :::
# ::::
#
# :::{solution-start} translation-both
# :class: dropdown
# :::

# %% tags=["nbval-ignore-output"]
days = [date(2025, 4, 3), date(2025, 3, 4)]
x, lengths, _ = asked([Example("?", "3/4/2025", "2025-04-03", "", "")])
several, log_p = beam(models[0], x, lengths, 2)
p = probabilities(models[0], ["3/4/2025"] * 2, "?", days)
ways = readings("3/4/2025", days[0])
for name, texts, odds in (("two best of the beam", spelt(several[0]), log_p[0].exp()),
                          ("the two readings", days, p),
                          ("the odds", days, [ways[d] / 3 for d in days])):     # of three
    print(f"{name}:", *(f"{t} {v:.2f}" for t, v in zip(texts, odds, strict=True)))

# %% [markdown]
# The second of the beam may be a mixture that nobody meant, and the network's probabilities are not to be trusted for a single string,
# as we saw. Where the readings can be listed, list them, with the odds.
#
# :::{solution-end}
# :::
#
# ::::{exercise} Other digits
# :label: translation-digits
#
# "٤ März ٢٠٢٥" has Arabic-Indic digits. What does the network make of it? Repair it in one line, without training.
#
# :::{admonition} Hint
# :class: dropdown
# Unknown characters all have the code 1. `unicodedata.digit`.
# :::
# ::::
#
# :::{solution-start} translation-digits
# :class: dropdown
# :::

# %% tags=["nbval-ignore-output"]
from unicodedata import digit

text = "٤ März ٢٠٢٥"
plain = "".join(str(digit(c, c)) for c in text)
for string in (text, plain):
    print(read(models[0], [Example("de", string, "2025-03-04", "", "")])[0][0])

# %% [markdown]
# What is *known* about the input belongs before the network, as NFKC does for spaces.
#
# :::{solution-end}
# :::
#
# ::::{exercise} Only days that exist
# :label: translation-valid
#
# Of the beam's four answers take the first that is a date. What becomes of 30 and 31 February? Is that better than to refuse?
#
# :::{admonition} Hint
# :class: dropdown
# `unmet[0]["30 or 31 February"]` holds such strings.
# :::
# ::::
#
# :::{solution-start} translation-valid
# :class: dropdown
# :::

# %% tags=["nbval-ignore-output"]
exam = unmet[0]["30 or 31 February"]
x, lengths, _ = asked(exam)
for e, several in zip(exam[:5], beam(models[0], x, lengths, 4)[0], strict=False):
    print(e.text, "→", next(filter(is_date, spelt(several)), None))

# %% [markdown]
# It invents a day that nobody wrote. An output that is forced to look right hides that the input was wrong: refuse.
#
# :::{solution-end}
# :::
#
# ## Takeaways
#
# 1. An encoder, a decoder and attention learn from {glue:text}`translation-count:,` strings to read dates of twelve places, on
#    days that they have never met: told the place, {glue:text}`translation-bad-net-clean-told` errors of
#    {glue:text}`translation-clean-all:,`, level with dateparser; with a slip
#    {glue:text}`translation-bad-net-slips-told` of {glue:text}`translation-slips-all`, where dateparser fails in
#    {glue:text}`translation-bad-parser-slips-told` and rules by hand are wrong in {glue:text}`translation-bad-rules-slips-told` (A31).
# 2. Whole answers are right equally often after the true prefix and after the own; what a decoder makes of its prefix, a planted
#    error tells. Where the source leaves two readings, it may mix them.
# 3. A test within the range of the training says nothing about another century: widen the training, check the answer, and keep
#    a way to refuse.

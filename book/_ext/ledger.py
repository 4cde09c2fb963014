"""The pages that a build makes from what was measured: the ledger of claims, and the run times.

Directives: `{claims-count}`, `{claims-filter}`, `{claims-ledger}`, `{article-strip}`, `{article-tables}` and
`{run-times}`; and a role, `{measured}`, for a single measure in a text. Evidence comes from the outputs of the
committed notebooks and from the recorded runs in `results/`; a claim without its evidence, or a bound that fails,
ends the build. What was seen to break a claim (`results/mutants/`) goes into the ledger, and into the claim's box
in its chapter, whose committed outputs know nothing of it.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

from lstm_lib.book import claims

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

import mutants  # noqa: E402  (needs the path above)
from chapters import chapters, notebook  # noqa: E402

PUBLISHED_RUN = "in the book, one CPU thread"
"""What the ledger calls the run whose outputs the pages show."""

SECTIONS = {
    "1": "gates and gradients",
    "2": "an LSTM in PyTorch",
    "3": "training",
    "4": "applications and limits",
    "5": "variants",
    "6": "outlook",
}
"""What the sections of the source article are about."""

VERDICTS = {
    "false": "false as stated",
    "when": "true when …",
    "true": "true",
    "open": "not yet tested",
    "none": "not testable",
}
"""The verdicts by which the ledger can be filtered, the one that readers look for first."""


def page_evidence(root: Path = ROOT) -> dict[str, list[claims.Evidence]]:
    """The evidence in the book's own notebooks, by chapter."""
    return {name: claims.from_notebook(notebook(name, root)) for name in chapters(root)}


def recorded(root: Path = ROOT) -> list[dict]:
    """The recorded runs, in the order of device, scale and chapter."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob("results/*/*/*/*.json"))]
    order = chapters(root)
    return sorted(
        (run for run in runs if run["chapter"] in order),
        key=lambda run: (run_name(run), order.index(run["chapter"])),
    )


def run_name(run: dict) -> str:
    """A recorded run in words: processor, scale, date."""
    return f"{run['device']}, {run['parameters']['scale']} scale, {run['date']}"


@cache
def seen_to_fail(chapter: str) -> dict[str, list[tuple[str, claims.Evidence]]]:
    """What broke each measure of a chapter, by its anchor: the mutants in words, and what they made of it."""
    found, current = {}, mutants.current(chapter, ROOT)
    for name, run in mutants.recorded(chapter, ROOT).items():
        stale = "" if run["source"] in current else " (in an earlier version of the chapter)"
        for one in mutants.broken(run):
            found.setdefault(one.anchor, []).append((name + stale, one))
    return found


def quoted(kills: list[tuple[str, claims.Evidence]]) -> str:
    """The first of several mutants, and how many there are besides."""
    (name, one), *others = kills
    return escape(f"{name}: {one.measured}" + (f"; and {len(others)} more" if others else ""))


def into_boxes(app: Sphinx, doctree: nodes.document) -> None:
    """Say in the claims' boxes of a chapter what was seen to break them."""
    chapter = app.env.docname.removeprefix("notebooks/")
    if not mutants.target(chapter, ROOT).exists():
        return
    kills = seen_to_fail(chapter)
    for raw in doctree.findall(nodes.raw):
        box = re.search(r'<div class="claim [^>]*id="([^"]+)"', raw.astext())
        if box and box[1] in kills:
            row = f'<tr><th scope="row">seen to fail</th><td>{quoted(kills[box[1]])}</td></tr></table>'
            raw.children = [nodes.Text(raw.astext().replace("</table>", row))]


def newly_broken(app: Sphinx, env: BuildEnvironment, *_: set[str]) -> list[str]:
    """The chapters whose mutants were run since their page was read."""
    pages = {f"notebooks/{chapter}": mutants.target(chapter, ROOT) for chapter in chapters(ROOT)}
    return [
        name
        for name, path in pages.items()
        if name in env.all_docs and path.exists() and path.stat().st_mtime_ns // 1000 > env.all_docs[name]
    ]


def source(claim: claims.Claim) -> str:
    """Where a claim was made: the article, or papers of the bibliography."""
    if claim.source.startswith("article"):
        return f"The source article, section {claim.source.removeprefix('article, ')}."
    return " ".join(f"{{cite:t}}`{key}`" for key in claim.source.split(", ")) + "."


def group(claim: claims.Claim) -> str:
    """The heading in the ledger under which a claim stands."""
    if claim.source.startswith("article"):
        number = claim.source.removeprefix("article, ")[0]
        return f"The article, section {number}: {SECTIONS[number]}"
    return f"Papers: {part(claim.chapters[0])}"


def part(chapter: str) -> str:
    """The part that a chapter belongs to."""
    return chapter.partition("/")[0]


def verdict(claim: claims.Claim, tested: set[str]) -> str:
    """A key of ``VERDICTS``."""
    if claim.verdict == "not testable":
        return "none"
    return claims.style(claim.verdict) if claim.id in tested else "open"


class Directive(SphinxDirective):
    """A directive whose content is written as MyST."""

    def text(self) -> list[str]:
        """The lines of MyST that stand for the directive."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        for path in [
            *map(notebook, chapters()),
            *ROOT.glob("results/**/*.json"),
            *ROOT.glob("lstm_lib/book/mutants/*/*.toml"),
            ROOT / "lstm_lib" / "book" / "claims.toml",
        ]:
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes("\n".join(self.text()), allow_section_headings=True)

    def link(self, chapter: str, text: str, anchor: str = "") -> str:
        """A link to a chapter's page; anchors of notebook outputs are unknown to Sphinx, so it is plain HTML."""
        uri = self.env.app.builder.get_relative_uri(self.env.docname, f"notebooks/{chapter}")
        return f'<a href="{uri}{anchor and "#" + anchor}">{escape(text)}</a>'


class Count(Directive):
    """How many claims are tested and what came out, each number a link to these claims in the ledger."""

    def text(self) -> list[str]:
        evidence = page_evidence()
        claims.audit(evidence)
        tested = {one.claim for found in evidence.values() for one in found}
        kills = [kill for name in evidence for kills in seen_to_fail(name).values() for kill in kills]
        failed = {one.claim for _, one in kills}
        number = Counter(verdict(claim, tested) for claim in claims.registry().values())

        def those(kind: str, words: str) -> str:
            uri = self.env.app.builder.get_relative_uri(self.env.docname, "book/claims")
            return f'<a href="{uri}?verdict={kind}">{number[kind]} {words}</a>'

        seen = "Each test" if failed == tested else f"For {len(failed)} of the {len(tested)} the test"
        kinds = {"open": "not yet tested", "none": "not testable"}
        others = [those(kind, words) for kind, words in kinds.items() if number[kind]]
        return [
            f"**{len(tested)} claims are tested.** {those('false', 'came out false as stated')}, "
            f"{those('when', 'true under a condition')} that the book names, and {those('true', 'true')}. "
            f"{seen} has been seen to fail when the claim's subject was broken on purpose. "
            + (f"Left out: {', '.join(others)}." if others else "")
        ]


class Filters(Directive):
    """A form that `ledger.js` shows and follows: without a script, all claims are shown and no form."""

    def text(self) -> list[str]:
        self.env.metadata[self.env.docname]["ledger"] = ""  # this page needs the script
        choices = {
            "verdict": ("Verdict", VERDICTS),
            "part": ("Part", {name: name for name in map(part, chapters())}),
            "seen": ("Seen to fail", {"yes": "yes", "no": "not yet"}),
        }
        fields = [
            f'<label>{label} <select name="{name}"><option value="">any</option>'
            + "".join(f'<option value="{key}">{words}</option>' for key, words in options.items())
            + "</select></label>"
            for name, (label, options) in choices.items()
        ]
        return [
            '<form class="ledger-filter" hidden>',
            *fields,
            '<button type="reset">Show all</button><output aria-live="polite"></output></form>',
            "",
        ]


class Ledger(Directive):
    """Every claim with its verdict and what was measured for it."""

    def text(self) -> list[str]:
        book = page_evidence()
        claims.audit(book)
        rows = [(one, PUBLISHED_RUN) for found in book.values() for one in found]
        rows += [
            (one, run_name(run))
            for run in recorded()
            for one in map(claims.Evidence.from_json, run["evidence"])
            if one not in book[run["chapter"]]  # the same figures once more say nothing new
            and one.anchor in {ours.anchor for ours in book[run["chapter"]]}  # a measure that is gone, neither
        ]
        entries = list(claims.registry().values())
        tested = {one.claim for found in book.values() for one in found}
        lines = []
        for heading in dict.fromkeys(
            map(group, sorted(entries, key=lambda claim: (claim.id[0], group(claim).split(":")[0])))
        ):
            lines += [f"## {heading}", ""]
            for claim in (claim for claim in entries if group(claim) == heading):
                mine = [row for row in rows if row[0].claim == claim.id]
                lines += self.entry(claim, mine, verdict(claim, tested))
        return lines

    def entry(self, claim: claims.Claim, rows: list[tuple[claims.Evidence, str]], kind: str) -> list[str]:
        words = claim.finding
        if kind == "open":
            words = "not yet tested" + f" (expected: {claim.verdict})" * (claim.verdict != "open")
        broken = {chapter: seen_to_fail(chapter) for chapter in {one.chapter for one, _ in rows}}
        kills = [broken[one.chapter][one.anchor][0] for one, _ in rows if one.anchor in broken[one.chapter]]
        classes = [f"claim-{kind}", f"verdict-{kind}", *(f"part-{part(name)}" for name in claim.chapters)]
        if rows:
            classes += ["seen-yes" if kills else "seen-no"]
        lines = [
            f"::::{{container}} claim {' '.join(dict.fromkeys(classes))}",
            "",
            f'<p class="claim-head" id="{claim.id.lower()}"><span class="claim-id">{claim.id}</span> '
            f'<span class="claim-verdict">{escape(words)}</span></p>',
            "",
            f"{claim.statement}",
            "",
            f"Source: {source(claim)}",
            "",
        ]
        if rows:

            def same(row):
                one, _ = row
                return one.chapter, one.measure, one.required

            tried = {chapter for chapter in broken if mutants.complete(chapter, ROOT)}
            if kills:
                told = f"Seen to fail: {quoted(kills[:1])} (must be {escape(kills[0][1].required)})."
            else:
                words = "No mutant breaks it" if tried else "Not yet seen to fail"
                told = f'<span class="claim-unbroken">{words}.</span>'
            lines += [f"<p>{told}</p>", ""]
            lines += ['<table class="claim-evidence">']
            for chapter, measure, required in dict.fromkeys(map(same, rows)):  # in the order of the argument
                runs = [row for row in rows if same(row) == (chapter, measure, required)]
                what = self.link(chapter, measure, runs[0][0].anchor)
                lines += [
                    '<tbody><tr><th colspan="2" scope="rowgroup">',
                    f"{what}, must be {escape(required)}</th></tr>",
                    *(
                        f'<tr><th scope="row">{escape(run)}</th><td>{escape(one.measured)}</td></tr>'
                        for one, run in runs
                    ),
                ]
                kills = broken[chapter].get(runs[0][0].anchor)
                if kills or chapter in tried:
                    said = quoted(kills) if kills else '<span class="claim-unbroken">no mutant breaks it</span>'
                    lines += [f'<tr><th scope="row" class="claim-mutant">seen to fail</th><td>{said}</td></tr>']
                lines += ["</tbody>"]
            lines += ["</table>", ""]
        elif claim.chapters:
            lines += [f"To be tested in: {', '.join(claim.chapters)}.", ""]
        return [*lines, "::::", ""]


class Article(Directive):
    """The sentences of the source article in its own order, each with its verdict."""

    def text(self) -> list[str]:
        tested = {one.claim for found in page_evidence().values() for one in found}
        entries = [claim for claim in claims.registry().values() if claim.source.startswith("article")]
        entries.sort(key=lambda claim: claim.source.split(", ")[1])  # by section; within one, as registered
        return self.told([(claim, verdict(claim, tested)) for claim in entries])

    def told(self, entries: list[tuple[claims.Claim, str]]) -> list[str]:
        """The lines of MyST for claims and the kinds of their verdicts."""
        raise NotImplementedError

    def linked(self, claim: claims.Claim, text: str, attributes: str = "") -> str:
        """A link to a claim's entry in the ledger."""
        uri = self.env.app.builder.get_relative_uri(self.env.docname, "book/claims")
        return f'<a href="{uri}#{claim.id.lower()}"{attributes}>{text}</a>'


class ArticleStrip(Article):
    """A square for each sentence, and how many there are of each verdict."""

    def told(self, entries: list[tuple[claims.Claim, str]]) -> list[str]:
        squares = [
            self.linked(
                claim, claim.id[1:], f' class="claim-verdict claim-{kind}" title="{claim.id}: {VERDICTS[kind]}"'
            )
            for claim, kind in entries
        ]
        number = Counter(kind for _, kind in entries)
        counts = ", ".join(f"{number[kind]} {words}" for kind, words in VERDICTS.items() if number[kind])
        strip = f'<p class="claim-strip">{"".join(squares)}</p>'
        return [strip, "", f"Of {len(entries)} sentences: {counts}."]


class ArticleTables(Article):
    """A table for each section, under a heading."""

    def told(self, entries: list[tuple[claims.Claim, str]]) -> list[str]:
        lines = []
        for heading, some in groupby(entries, key=lambda entry: group(entry[0])):
            lines += [heading.replace("The article, s", "## S"), ""]
            lines += ["| | The article says | What came out |", "|---|---|---|"]
            for claim, kind in some:
                badge = f'<span class="claim-verdict claim-{kind}">{VERDICTS[kind]}</span>'
                note = claim.note if kind != "open" else ""
                lines += [f"| {self.linked(claim, claim.id)} | {claim.statement} | {badge} {note} |"]
            lines += [""]
        return lines


class Measured(SphinxRole):
    """``{measured}`chapter#words of an anchor```: what a measure (or its median) came to in the published run,
    a link to its box."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        chapter, _, words = self.text.partition("#")
        self.env.note_dependency(str(notebook(chapter)))
        all_of_it = {one.anchor: one.measured for one in claims.from_notebook(notebook(chapter))}
        found = [words] if words in all_of_it else [anchor for anchor in all_of_it if words in anchor]
        if len(found) != 1:
            got = f"{words!r}, which is in {len(found)} of its anchors: {found or list(all_of_it)}"
            raise ExtensionError(f"{self.env.docname}: measured must name one measure of {chapter}, got {got}")
        uri = self.env.app.builder.get_relative_uri(self.env.docname, f"notebooks/{chapter}")
        middle = all_of_it[found[0]].partition(" (")[0]
        return [nodes.reference("", middle, refuri=f"{uri}#{found[0]}", internal=True)], []


class RunTimes(Directive):
    """Seconds and memory of every chapter, for each recorded run."""

    def text(self) -> list[str]:
        lines = []
        for name, runs in groupby(recorded(), key=run_name):
            runs = list(runs)
            versions = runs[0]["versions"]
            lines += [
                f"**{name}** (PyTorch {versions['torch']}, Python {versions['python']}, "
                f"{runs[0]['threads']} CPU thread{'s' * (runs[0]['threads'] > 1)})",
                "",
                "| chapter | seconds | peak memory |",
                "|---|---:|---:|",
            ]
            lines += [
                f"| {self.link(run['chapter'], run['chapter'])} | {run['seconds']:,.0f} | {memory(run)} |"
                for run in runs
            ] + [""]
        return lines or ["No run is recorded yet."]


def memory(run: dict) -> str:
    """Peak memory of a recorded run, the device's where it has its own."""
    peak = run["device_peak_bytes"] or run["host_peak_bytes"]
    return f"{peak / 2**20:,.0f}\N{NO-BREAK SPACE}MiB" if peak else "not known"


def script(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Load the filters where there is a ledger."""
    if "ledger" in (context.get("meta") or {}):
        app.add_js_file("ledger.js", defer="defer")


def setup(app: Sphinx) -> dict:
    app.add_directive("claims-count", Count)
    app.add_directive("claims-filter", Filters)
    app.add_directive("claims-ledger", Ledger)
    app.add_directive("article-strip", ArticleStrip)
    app.add_directive("article-tables", ArticleTables)
    app.add_directive("run-times", RunTimes)
    app.add_role("measured", Measured())
    app.connect("doctree-read", into_boxes)
    app.connect("html-page-context", script)
    app.connect("env-get-outdated", newly_broken)
    return {"version": "1", "parallel_read_safe": True}

"""The pages that a build makes from what was measured: the ledger of claims, and the run times.

Directives: `{claims-count}`, `{claims-ledger}` and `{run-times}`. Evidence comes from the outputs of the committed
notebooks and from the recorded runs in `results/`; a claim without its evidence, or a bound that fails, ends the
build.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from html import escape
from itertools import groupby
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lstm_lib.book import claims

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

from chapters import chapters, notebook  # noqa: E402  (needs the path above)

PUBLISHED_RUN = "the page: CPU, quick scale"
"""What the ledger calls the run whose outputs the pages show."""


def page_evidence(root: Path = ROOT) -> dict[str, list[claims.Evidence]]:
    """The evidence in the book's own notebooks, by chapter."""
    return {name: claims.from_notebook(notebook(name, root)) for name in chapters(root)}


def recorded(root: Path = ROOT) -> list[dict]:
    """The recorded runs, in the order of device, scale and chapter."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob("results/*/*/*.json"))]
    order = chapters(root)
    return sorted(
        (run for run in runs if run["chapter"] in order),
        key=lambda run: (run_name(run), order.index(run["chapter"])),
    )


def run_name(run: dict) -> str:
    """A recorded run in words: processor, scale, date."""
    return f"{run['device']}, {run['parameters']['scale']} scale, {run['date']}"


def source(claim: claims.Claim) -> str:
    """Where a claim was made: the article, or papers of the bibliography."""
    if claim.source.startswith("article"):
        return f"The source article, section {claim.source.removeprefix('article, ')}."
    return " ".join(f"{{cite:t}}`{key}`" for key in claim.source.split(", ")) + "."


class Directive(SphinxDirective):
    """A directive whose content is written as MyST."""

    def text(self) -> list[str]:
        """The lines of MyST that stand for the directive."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        for path in [
            *map(notebook, chapters()),
            *ROOT.glob("results/*/*/*.json"),
            ROOT / "lstm_lib" / "book" / "claims.toml",
        ]:
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes("\n".join(self.text()))

    def link(self, chapter: str, text: str, anchor: str = "") -> str:
        """A link to a chapter's page; anchors of notebook outputs are unknown to Sphinx, so it is plain HTML."""
        uri = self.env.app.builder.get_relative_uri(self.env.docname, f"notebooks/{chapter}")
        return f'<a href="{uri}{anchor and "#" + anchor}">{escape(text)}</a>'


class Count(Directive):
    """One sentence: how many claims, how many tested, with which verdicts."""

    def text(self) -> list[str]:
        evidence = page_evidence()
        claims.audit(evidence)
        tested = {one.claim for found in evidence.values() for one in found}
        verdicts = Counter(claim.verdict for claim in claims.registry().values() if claim.id in tested)
        opinions = sum(claim.verdict == "not testable" for claim in claims.registry().values())
        waiting = len(claims.registry()) - len(tested) - opinions
        found = ", ".join(
            f"{verdicts[name]} {'true when …' if name == 'true when' else name}"
            for name in claims.VERDICTS
            if verdicts[name]
        )
        return [
            f"The book has {len(claims.registry())} claims to test. **{len(tested)} are tested** ({found}), "
            f"{waiting} are not yet tested, {opinions} cannot be tested."
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
            if one not in book[run["chapter"]]
        ]  # the same figures once more say nothing new
        lines = []
        for claim in claims.registry().values():
            mine = [row for row in rows if row[0].claim == claim.id]
            lines += self.entry(claim, mine)
        return lines

    def entry(self, claim: claims.Claim, rows: list[tuple[claims.Evidence, str]]) -> list[str]:
        if rows or claim.verdict == "not testable":
            style, words = claims.style(claim.verdict), claim.finding
        else:
            style, words = "open", "not yet tested"
            words += f" (expected: {claim.verdict})" if claim.verdict != "open" else ""
        lines = [
            f"::::{{container}} claim claim-{style}",
            "",
            f"({claim.id.lower()})=",
            f'<p class="claim-head"><span class="claim-id">{claim.id}</span> '
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

            lines += ['<table class="claim-evidence">']
            for (chapter, measure, required), runs in groupby(sorted(rows, key=same), key=same):
                runs = list(runs)
                what = self.link(chapter, measure, runs[0][0].anchor)
                lines += [
                    '<tbody><tr><th colspan="2" scope="rowgroup">',
                    f"{what}, must be {escape(required)}</th></tr>",
                    *(
                        f'<tr><th scope="row">{escape(run)}</th><td>{escape(one.measured)}</td></tr>'
                        for one, run in runs
                    ),
                    "</tbody>",
                ]
            lines += ["</table>", ""]
        elif claim.chapters:
            lines += [f"To be tested in: {', '.join(claim.chapters)}.", ""]
        return [*lines, "::::", ""]


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
                f"| {self.link(run['chapter'], run['chapter'])} | {run['seconds']:.0f} | {memory(run)} |"
                for run in runs
            ] + [""]
        return lines or ["No run is recorded yet."]


def memory(run: dict) -> str:
    """Peak memory of a recorded run, the device's where it has its own."""
    peak = run["device_peak_bytes"] or run["host_peak_bytes"]
    return f"{peak / 2**20:,.0f} MiB" if peak else "not known"


def setup(app: Sphinx) -> dict:
    app.add_directive("claims-count", Count)
    app.add_directive("claims-ledger", Ledger)
    app.add_directive("run-times", RunTimes)
    return {"version": "1", "parallel_read_safe": True}

"""The claims as Markdown: a summary, and a table of comparisons for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from claims import CLAIMS, Claim
from estimates import VERDICTS, Finding, Interval, summarise

from unipeft_run.report.render import render_markdown
from unipeft_run.report.tables import Row, Table

Findings = Sequence[Sequence[Finding]]  # by claim


def render_summary(findings: Findings) -> str:
    """Render a table with a row per claim."""
    rows = [
        f"| {claim.title} | {summarise(found)} | {_count(found)} |"
        for claim, found in zip(CLAIMS, findings, strict=True)
    ]
    return "\n".join(
        ["| claim of the paper | in miniature | comparisons |", "|---|---|---|", *rows]
    )


def _count(findings: Sequence[Finding]) -> str:
    verdicts = [finding.verdict for finding in findings]
    return ", ".join(f"{verdicts.count(name)} {name}" for name in VERDICTS if name in verdicts)


def render_claims(findings: Findings) -> Iterator[str]:
    """Yield a table of comparisons and a sentence for each claim."""
    for claim, found in zip(CLAIMS, findings, strict=True):
        rows = [_make_row(claim, finding) for finding in found]
        yield "#" + render_markdown([Table(claim.title, {}, rows)])
        yield f"{_describe(claim, found)} In the paper: {claim.source}."


def _make_row(claim: Claim, finding: Finding) -> Row:
    pair, found = finding.pair, finding.estimate
    row: Row = {
        "task": pair.task,
        "from": "" if pair.printed is None else _name_table(pair.table),
        "first": pair.first,
        "second": pair.second,
        "paper": "" if pair.printed is None else f"{pair.printed:+.2f}",
        "here": f"{found.difference:+.2f}" if found else "",
        "seeds": _format(found.seeds) if found else "",
        "examples": _format(found.examples) if found else "",
        "both": _format(found.both) if found else "",
    }
    if not claim.close:
        row["p Holm"] = "" if finding.p_holm is None else f"{finding.p_holm:.4f}"
    return {**row, "verdict": finding.verdict}


def _name_table(name: str) -> str:
    return name.replace("table", "table ").replace("figure", "figure ")


def _format(interval: Interval) -> str:
    return f"{interval[0]:+.2f} to {interval[1]:+.2f}"


def _describe(claim: Claim, findings: Sequence[Finding]) -> str:
    """Summarise the verdicts, with the tasks of the significant comparisons."""
    known = [finding.estimate.difference for finding in findings if finding.estimate]
    if not known:
        return "**Incomplete**: runs are missing."
    where = "; ".join(
        f"{verdict} on {', '.join(tasks)}"
        for verdict in VERDICTS[:2]
        if (tasks := dict.fromkeys(f.pair.task for f in findings if f.verdict == verdict))
    )
    ahead = sum(difference > 0 for difference in known)
    signs = f"{ahead} of {len(known)} differences have the expected sign"
    parts = [where] * bool(where) + [signs] * (not claim.close)
    verdict = summarise(findings).capitalize()
    return f"**{verdict}**: {'; '.join(parts)}." if parts else f"**{verdict}**."

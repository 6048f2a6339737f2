"""The first screen's sentences: the main findings, and what to beware of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lorascope.models.sanity_checks import LIVE, RESTORED
from lorascope.report.conditions import measured
from lorascope.report.formatting import listing, number, plural, shown_token
from lorascope.report.latents import Browsed
from lorascope.report.left_out import left_out_lines
from lorascope.report.result import Results
from lorascope.results import Estimate
from lorascope.results.labels import DELTA, Of
from lorascope.studies.audit.sections.findings import SINGLE, SINGLE_MEANS, Findings
from lorascope.studies.audit.sections.questions import told_in_words
from lorascope.studies.audit.sections.topics import HEADLINE_MEASURES

# Topics whose first sentence stands on the first screen.
_TOPICS: Final = {
    "behaviour": "Behaviour",
    "size": "Size of the change",
    "reconstruction": "Reconstruction",
    "effects": "Effect on the outputs",
}
_MANY_DEAD: Final = 0.1
# The title of what the adapters learned.
IN_WORDS: Final = "In words"
# Adapters whose strongest latent is told.
_TOLD: Final = 4


def leads(
    results: Results, by_topic: Mapping[str, Sequence[str]], browsed: Sequence[Browsed]
) -> list[tuple[str, str]]:
    """Titles and sentences: live, what was found, size and effect, strongest latents."""
    found = [("Adapters", live(results)), *_in_words(results), *Findings.of(results).leads]
    counted = [
        (title, f"{SINGLE}: {by_topic[key][0]}")
        for key, title in _TOPICS.items()
        if by_topic.get(key)
    ]
    found += [(SINGLE, SINGLE_MEANS), *counted] if counted else []
    found.append(("Strongest latents", _strongest(results, browsed)))
    return [(title, sentence) for title, sentence in found if sentence]


def _in_words(results: Results) -> list[tuple[str, str]]:
    """What each adapter learned: the reading's verdict and how much null adapters say."""
    told = results.facts.get("read", {})
    lines = [told_in_words(told[name]) for name in results.adapters if name in told]
    more = f" {plural(len(lines) - _TOLD, 'adapter')} more under In words."
    shown = " ".join(lines[:_TOLD]) + (more if len(lines) > _TOLD else "")
    return [(IN_WORDS, shown)] if lines else []


def headline_numbers(results: Results) -> list[Estimate]:
    """Every headline number that has a rival null, seed pairs left out."""
    return [
        estimate
        for measure in HEADLINE_MEASURES
        for estimate in measured(results, measure)
        if estimate.rivals and not Of.key(estimate.key).seeds_alone
    ]


def cautions(results: Results) -> list[str]:
    """Failed sanity checks and yardsticks, what was left out, warnings, dead latents, …"""
    checks = results.facts.get("sanity_checks", [])
    found = [
        f"Sanity check failed: {one.get('check', '')}. {one.get('detail', '')}"
        for one in checks
        if not one.get("passed", True)
    ]
    found += [*_failed_yardsticks(results.facts), *_massive(results.facts)]
    found += left_out_lines(results.facts)
    found += [str(warning) for warning in results.facts.get("warnings", [])]
    read = results.facts.get("read", {})
    found += [f"{name}: {line}" for name, one in read.items() for line in one["cautions"]]
    return found + [line for line in (_unsettled(results), _dead(results)) if line]


def _failed_yardsticks(facts: Mapping[str, Any]) -> list[str]:
    """What was measured with a dictionary that is not good enough has no verdict."""
    failed = [y for y in facts.get("yardsticks", []) if not y.get("passed", True)]
    lines = []
    for one in (y for y in failed if y.get("draw") is None and not y.get("setting")):
        whose = f" of {one['adapter']}" if one.get("adapter") else ""
        seed = f", seed {one['seed']}" if one.get("seed") is not None else ""
        which = f"The {one.get('dictionary', '')} dictionary{whose} at {one.get('site', '')}{seed}"
        reason = one.get("reason", "")
        lines.append(
            f"{which} fails its yardsticks ({reason}): what is measured with it has no verdict."
        )
    drawn = sum(y.get("draw") is not None for y in failed)
    if drawn:
        fails = "fails its yardsticks" if drawn == 1 else "fail their yardsticks"
        lines.append(f"{plural(drawn, 'dictionary')} of null draws {fails}.")
    return lines


def _massive(facts: Mapping[str, Any]) -> list[str]:
    """Sites whose numbers are judged without a few coordinates that hold most of the energy."""
    lines = []
    for site, one in facts.get("massive", {}).items():
        coordinates, directions = one.get("coordinates", []), one.get("directions", [])
        held = sum(part["share"] for part in (*coordinates, *directions))
        named = [f"coordinate {part['coordinate']}" for part in coordinates]
        named += [plural(len(directions), "direction")] if directions else []
        verb = "hold" if len(named) > 1 or len(directions) > 1 else "holds"
        if named:
            lines.append(
                f"{listing(named)} at {site} {verb} {number(100 * held)} % of the base stream's "
                "energy: sentences and verdicts are of the numbers without them."
            )
    return lines


def live(results: Results) -> str:
    """Whether the adapters are live, as the sanity checks say."""
    checks = results.facts.get("sanity_checks", [])
    known = {str(g.get("adapter", "")): g for g in checks if g.get("id") == LIVE}
    tried = {name: known[name] for name in results.adapters if name in known}
    if not tried:
        return ""
    live = [name for name, one in tried.items() if one.get("passed", True)]
    if len(live) < len(tried):
        silent = listing([name for name in tried if name not in live])
        return f"Not live: {silent}. Their numbers say nothing about an adapter."
    restored = any(g.get("id") == RESTORED and g.get("passed", False) for g in checks)
    back = "; with adapters off its outputs return bit for bit" if restored else ""
    return (
        f"{_named(results, live)} {'is' if len(live) == 1 else 'are'} live: every tensor of the "
        + (f"file is used and the outputs differ from the base model's{back}.")
    )


def _named(results: Results, names: Sequence[str]) -> str:
    ranks = {str(a["name"]): a.get("rank") for a in results.facts.get("adapters", [])}
    return listing([f"{n} (rank {ranks[n]})" if ranks.get(n) else n for n in names])


def _strongest(results: Results, browsed: Sequence[Browsed]) -> str:
    """Each adapter's latent that writes most of its delta, in tokens."""
    norms = {(e.key.adapter, e.key.site): e.value for e in measured(results, "delta_norm")}
    best: dict[str, tuple[float, Browsed]] = {}
    for each in browsed:
        adapter, site = str(each.head["adapter"]), str(each.head["site"])
        if not len(each):
            continue
        part = (each.columns["written"][0] or 0.0) / norms.get((adapter, site), math.inf)
        if adapter not in best or part > best[adapter][0]:
            best[adapter] = part, each
    told = [_told(part, each) for part, each in list(best.values())[:_TOLD]]
    more = (
        f" {plural(len(best) - _TOLD, 'adapter')} more under Features." if len(best) > _TOLD else ""
    )
    return "; ".join(told) + "." + more if told else ""


def _told(part: float, each: Browsed) -> str:
    columns: dict[str, list[Any]] = each.columns
    writes = f" writes {number(100 * part)} % of the delta's norm," if part else ""
    return (
        f"{each.head['adapter']}: latent {columns['latent'][0]} at {each.head['site']}{writes} "
        f"fires on {_tokens(columns['fires'][0])} and promotes {_tokens(columns['promotes'][0])}"
    )


def _tokens(found: Sequence[str]) -> str:
    return listing([f"“{shown_token(token)}”" for token in found[:3]]) or "nothing"


def _unsettled(results: Results) -> str:
    rows = headline_numbers(results)
    count = sum(row.verdict == "not settled" for row in rows)
    if not count:
        return ""
    return (
        f"{count} of {plural(len(rows), 'headline number')} with a rival null "
        f"{'is' if count == 1 else 'are'} not settled: "
        "the interval of the difference holds zero and reaches beyond the margin. Where more of "
        "what was sampled would tell, the tables say how much."
    )


def _dead(results: Results) -> str:
    rows = [e for e in measured(results, "dead_share", Of(DELTA)) if e.value > _MANY_DEAD]
    if not rows:
        return ""
    worst = sorted(rows, key=lambda row: -row.value)
    where = [f"{e.key.adapter} at {e.key.site} ({number(100 * e.value)} %)" for e in worst]
    return (
        f"Dead latents: more than {100 * _MANY_DEAD:.0f} % of the delta dictionary never fires in "
        f"{plural(len(rows), 'condition')}: {listing(list(dict.fromkeys(where)), 3)}."
    )

"""What `check` prints: two short tables, the findings, and the user's gates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lorascope.checking.effect import KL, LOSS, ROUNDED
from lorascope.checking.findings import listed
from lorascope.checking.numbers import EFFECTIVE, NORM, OUTLIER, STABLE
from lorascope.checking.reference import NUMBERS
from lorascope.printing import Column, Console, say, say_table
from lorascope.results import Estimate
from lorascope.results.labels import ALL_MODULES

if TYPE_CHECKING:
    from lorascope.checking.check import Check
    from lorascope.checking.effect import Effect

_TITLES = {NORM: "norm", EFFECTIVE: "effective rank", STABLE: "stable rank", OUTLIER: "largest |z|"}


def print_check(found: Check) -> None:
    """Print everything on stdout."""
    for line in _heading(found):
        say(line)
    if found.read.modules:
        _print_kinds(found)
        _print_ordinary(found)
    if found.effect is not None:
        _print_effect(found)
    for finding in found.findings:
        say(f"{finding.level}: [{finding.rule}] {finding.message}")
    if not found.findings:
        say("nothing is damaged, empty or left unused")
    for gate in found.gates:
        say(f"{'passed' if gate.passed else 'MISSED'}: {gate.option}: {gate.message}")


def _heading(found: Check) -> Iterator[str]:
    read = found.read
    base = f", made for {read.base}" if read.base else ""
    yield f"{read.name}: {read.kind}, {read.parameters:,} parameters{base}"
    if read.modules:
        ranks = sorted({module.shape[1] for module in read.modules})
        scales = sorted({round(module.scale, 6) for module in read.modules})
        yield (
            f"{len(read.modules)} modules, rank {listed([str(r) for r in ranks])}, "
            f"scale {listed([f'{scale:g}' for scale in scales])}"
        )


def _print_kinds(found: Check) -> None:
    rows = {one.kind: one for one in found.outliers}
    numbers: dict[tuple[str, str], Estimate] = {
        (e.measure, e.key.module): e for e in found.estimates if e.key.rank is None
    }
    single = {(e.measure, e.key.module): e for e in found.estimates}
    kinds = [ALL_MODULES, *dict.fromkeys(module.kind for module in found.read.modules)]
    counts = {kind: sum(m.kind == kind for m in found.read.modules) for kind in kinds}
    counts[ALL_MODULES] = len(found.read.modules)

    def cells(measure: str) -> list[str]:
        return [_beside(numbers.get((measure, k)) or single.get((measure, k))) for k in kinds]

    columns = [
        Column("modules", [_short(kind) for kind in kinds], 0, wraps=True),
        Column("n", [str(counts[kind]) for kind in kinds], 5),
        *(
            Column(f"{_TITLES[measure]} (chance)", cells(measure), rank)
            for measure, rank in ((NORM, 1), (EFFECTIVE, 2), (STABLE, 4))
        ),
        Column("largest |z| (chance)", cells(OUTLIER), 3),
        Column("p", [_p(rows[kind].p) if kind in rows else "" for kind in kinds], 3),
    ]
    say_table(columns, Console())


def _short(kind: str) -> str:
    """What comes after the last number of a path."""
    return kind.rpartition("*.")[2] or kind


def _beside(estimate: Estimate | None) -> str:
    if estimate is None or estimate.headline is None:
        return ""
    null = estimate.headline
    return f"{estimate.value:.3g} ({null.low:.3g}-{null.high:.3g})"


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2g}"


def _print_effect(found: Check) -> None:
    effect = found.effect
    assert effect is not None
    if not effect.estimates:
        return
    live = "live" if effect.live else "NOT LIVE"
    restored = "restored bit for bit" if effect.restored else "NOT RESTORED"
    say(
        f"on {found.settings.model}: {live}; base {restored} when off; {effect.documents} texts, "
        f"{effect.tokens} tokens; {found.settings.draws} null adapters of the same spectrum"
    )
    names = {KL: "KL(adapted ‖ base)", LOSS: "loss, adapted - base"}
    shown = [e for e in effect.estimates if e.measure in names]
    nulls = [e.headline for e in shown]
    say_table(
        [
            Column("nats/token", [names[e.measure] for e in shown], 0, wraps=True),
            Column("value", [f"{e.value:.4g}" for e in shown], 1),
            Column("95 % of texts", [_span(*e.interval) for e in shown], 4),
            Column("chance", [f"{n.level:.4g}" if n else "" for n in nulls], 2),
            Column("95 % of draws", [_span(n.low, n.high) if n else "" for n in nulls], 3),
            Column("rank p", [_p(n.p) if n and n.p is not None else "" for n in nulls], 2),
        ],
        Console(),
    )
    if effect.curve:
        say_table(
            [
                Column("scale times", [f"{at.factor:g}" for at in effect.curve], 0),
                Column("KL", [f"{at.kl:.4g}" for at in effect.curve], 1),
                Column("loss", [f"{at.loss:+.4g}" for at in effect.curve], 2),
            ],
            Console(),
        )
    if effect.merged is not None:
        say(f"merged and unmerged logits differ by {effect.merged:.3g} at most")
    _print_rounded(effect)
    _print_intruders(effect, len(found.read.modules))


def _print_rounded(effect: Effect) -> None:
    costs = [e for e in effect.estimates if e.measure == ROUNDED]
    if not costs:
        return
    nulls = [e.headline for e in costs]
    say_table(
        [
            Column("merged, stored as", [e.key.setting for e in costs], 0),
            Column("KL to unmerged", [f"{e.value:.4g}" for e in costs], 1),
            Column("base's own cost", [f"{n.level:.4g}" if n else "" for n in nulls], 2),
            Column("verdict", [e.verdict for e in costs], 4),
            Column("effect kept, KL", [f"{one.kept:.4g}" for one in effect.rounded], 3),
        ],
        Console(),
    )


def _print_intruders(effect: Effect, modules: int) -> None:
    rows = [e for e in effect.estimates if e.measure == "weights.intruders"]
    sizes = {e.key.module: e for e in effect.estimates if e.measure == "weights.relative"}
    if not rows:
        return
    count = sum(e.key.module != ALL_MODULES for e in rows)
    say(f"the {count} of {modules} modules with the largest updates, beside their base weights:")
    relative = [f"{sizes[e.key.module].value:.3g}" for e in rows]
    say_table(
        [
            Column("module", [e.key.module for e in rows], 0, wraps=True),
            Column("norm over the base's", relative, 1),
            Column("intruder dimensions", [f"{e.value:.3g}" for e in rows], 2),
            Column("chance", [_chance(e) for e in rows], 3),
        ],
        Console(),
    )


def _chance(estimate: Estimate) -> str:
    null = estimate.headline
    return "" if null is None else f"{null.low:.3g}-{null.high:.3g}"


def _print_ordinary(found: Check) -> None:
    rows = [(e, e.headline) for e in found.beside_ordinary]
    if not rows:
        return
    say_table(
        [
            Column("number", [NUMBERS[e.key.setting] for e, _ in rows], 0, wraps=True),
            Column("value", [f"{e.value:.3g}" for e, _ in rows], 1),
            Column(
                f"{found.reference.count} ordinary adapters",
                [f"{n.low:.3g}-{n.high:.3g}" if n else "" for _, n in rows],
                2,
            ),
            Column("rank p", [_p(n.p) if n and n.p is not None else "" for _, n in rows], 3),
        ],
        Console(),
    )


def _span(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.4g} to {high:.4g}"


def number(value: float | None) -> str:
    """Three digits; nothing for what is not known."""
    return "" if value is None or math.isnan(value) else f"{value:.3g}"

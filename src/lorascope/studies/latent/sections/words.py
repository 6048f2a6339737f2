"""What a latent study found, in a few plain sentences; the verdict stands first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorascope.report.formatting import interval, number, plural, verdict_words
from lorascope.results import Estimate, Estimates

_SIDES = ("read", "written")


def verdicts(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> list[str]:
    """Sentences, the most important first."""
    found = [
        _goal(numbers, facts),
        *_held_out(numbers, facts),
        _overlap(numbers, facts),
        *_ablations(numbers, facts),
        *_flat(numbers, facts),
    ]
    return [sentence for sentence in found if sentence]


def _of(
    numbers: Sequence[Estimate],
    measure: str,
    adapter: str,
    facts: Mapping[str, Any],
    **fields: Any,
) -> Estimate | None:
    """The number over all seeds; the only seed's where it was taken under one."""
    found = Estimates(numbers).taken(measure, adapter=adapter, **fields)
    pooled = found.taken(seed=None)
    if len(pooled):
        return pooled[0]
    return found[0] if len(found) else None


def kept_at_most(
    numbers: Sequence[Estimate], facts: Mapping[str, Any], choice: str
) -> Estimate | None:
    """Behaviour kept by a choice cut down to the size asked for, or whole where it is smaller."""
    cut = _of(numbers, "latent.kept", choice, facts, size=facts["most"])
    if cut is not None:
        return cut
    used = [_of(numbers, "latent.used", choice, facts, dictionary=side) for side in _SIDES]
    if all(u is not None and u.value <= facts["most"] for u in used):
        return _of(numbers, "latent.kept", choice, facts, size=None)
    return None


def _goal(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> str:
    choice, most = facts["chosen"], facts["most"]
    kept = kept_at_most(numbers, facts, choice)
    if not any(e.measure == "latent.kept" for e in numbers):
        return "The dense adapter shows the behaviour nowhere: there is nothing to keep of it."
    if kept is None:
        return f"No adapter was cut down to {most} latents: add {most} to measures.sizes."
    if kept.verdict == "no verdict":
        return (
            f"“{choice}” keeps {number(kept.value)} of the dense adapter's success: too few "
            f"prompts on which that shows the behaviour for an interval or a verdict."
        )
    goal, low = facts["share"], kept.interval[0]
    reached = "reached" if kept.value >= goal else "not reached"
    if low < goal <= kept.value:
        reached += ", though not by the whole interval"
    n = facts["dictionary"]["latents"]
    return (
        f"“{choice}” reads and writes at most {most} of {n:,} latents each and keeps "
        f"{number(kept.value)} {interval(*kept.interval)} of the dense adapter's success "
        f"({_beside(kept)}; {plural(len(facts['seeds']), 'seed')}): "
        f"the goal of {number(goal)} is {reached}."
    )


def _beside(kept: Estimate) -> str:
    levels = ", ".join(f"{null.name} {number(null.level)}" for null in kept.rivals)
    return f"{levels}: {verdict_words(kept)}"


def _held_out(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> list[str]:
    success = _of(numbers, "behaviour.success", facts["chosen"], facts)
    elsewhere = _of(numbers, "behaviour.false_positives", facts["chosen"], facts, topic="")
    lora = _of(numbers, "behaviour.success", "LoRA", facts)
    prompted = _of(numbers, "behaviour.success", "prompted", facts)
    if success is None or elsewhere is None:
        return []
    beside = [f"{number(success.chance)} by the untouched model"]
    if lora is not None:
        beside.append(f"{number(lora.value)} by an ordinary LoRA of rank {lora.key.rank}")
    if prompted is not None:
        beside.append(f"{number(prompted.value)} by prompting")
    return [
        f"Cut down, it shows the behaviour on {number(success.value)} "
        f"{interval(*success.interval)} of held-out prompts about the topic ({', '.join(beside)}) "
        f"and on {number(elsewhere.value)} {interval(*elsewhere.interval)} of the others "
        f"({number(elsewhere.chance)} by the untouched model)."
    ]


def _overlap(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> str:
    parts = []
    for side in _SIDES:
        e = _of(numbers, "latent.overlap", facts["chosen"], facts, dictionary=side)
        if e is not None:
            parts.append(
                f"{number(e.value)} of those {side} {interval(*e.interval)} "
                f"(chance {number(e.chance)}, {e.verdict})"
            )
    if not parts:
        return ""
    return f"Two seeds choose the same latents: {' and '.join(parts)}."


def _ablations(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> list[str]:
    found = []
    for side in _SIDES:
        rise, share, left = (
            _of(numbers, f"latent.{measure}", facts["chosen"], facts, dictionary=side)
            for measure in ("ablation", "mattering", "left")
        )
        if rise is None:
            continue
        said = (
            f"Without one latent that is {side} the behaviour's loss rises by "
            f"{number(rise.value)} nats/token, without one like it by {number(rise.chance)} "
            f"({verdict_words(rise)})"
        )
        if share is not None:
            said += (
                f"; {number(share.value)} of {share.n} matter at p ≤ 0.05 among "
                f"{share.nulls[0].draws} like them, {number(share.chance)} would by chance "
                f"({verdict_words(share)})"
            )
        found.append(said + "." + _left(left, side, facts))
    return found


def _left(left: Estimate | None, side: str, facts: Mapping[str, Any]) -> str:
    """The behaviour's own measure, in prompts, without all latents of a side."""
    counts = [one for one in facts["latents"]["left"] if one["side"] == side]
    if not counts:
        return ""
    gone, whole = (sum(one[name] for one in counts) for name in ("left", "whole"))
    said = f" Without all of them it is shown on {gone} of the {whole} prompts that show it whole"
    if left is None:
        return said + ": ten are needed for a share to be said to be left."
    if left.verdict == "no verdict":
        return said + ": too few for a verdict."
    others = number(left.chance)
    around = interval(*left.interval)
    return (
        f"{said}, {number(left.value)} {around}; without as many like them {others} "
        f"({verdict_words(left)})."
    )


def _flat(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> list[str]:
    """Which choices leave the factors as flat as they began."""
    found = []
    for choice in facts["choices"]:
        if "L1" not in choice:
            continue
        each = [_of(numbers, "latent.effective", choice, facts, dictionary=side) for side in _SIDES]
        if any(e is None for e in each):
            continue
        words = [
            f"{number(e.value)} latents {side} (random direction {number(e.chance)})"
            for e, side in zip(each, _SIDES, strict=True)
            if e is not None
        ]
        fall = _penalty(facts, choice)
        found.append(f"“{choice}”: its factors are carried by {' and '.join(words)}{fall}.")
    return found


def _penalty(facts: Mapping[str, Any], choice: str) -> str:
    points = [p["penalty"] for p in facts["curves"] if p["choice"] == choice]
    if len(points) < 2 or not points[0]:
        return ""
    return f", while the penalty went from {number(points[0])} to {number(points[-1])}"

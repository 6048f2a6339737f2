"""What a latent study found, in a few plain sentences; the verdict stands first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorascope.report.formatting import interval, number, plural
from lorascope.results import Estimate

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
    dictionary: str | None = None,
    setting: str | None = None,
) -> Estimate | None:
    """The number over all seeds; the only seed's where there is one."""
    seed = None if len(facts["seeds"]) > 1 else facts["seeds"][0]
    for e in numbers:
        place = e.key
        fits = (dictionary is None or place.dictionary == dictionary) and (
            setting is None or place.setting == setting
        )
        if (
            e.measure == measure
            and place.adapter == adapter
            and fits
            and place.seed in (seed, None)
        ):
            return e
    return None


def kept_at_most(
    numbers: Sequence[Estimate], facts: Mapping[str, Any], choice: str
) -> Estimate | None:
    """Behaviour kept by a choice cut down to the size asked for, or whole where it is smaller."""
    wanted = {f"m={facts['most']}", "m=whole"}
    found = [
        e for s in sorted(wanted) if (e := _of(numbers, "latent.kept", choice, facts, None, s))
    ]
    used = [_of(numbers, "latent.used", choice, facts, side) for side in _SIDES]
    small = all(u is not None and u.value <= facts["most"] for u in used)
    for e in found:
        if e.key.setting != "m=whole" or small:
            return e
    return None


def _goal(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> str:
    choice, most = facts["chosen"], facts["most"]
    kept = kept_at_most(numbers, facts, choice)
    if not any(e.measure == "latent.kept" for e in numbers):
        return "The dense adapter shows the behaviour nowhere: there is nothing to keep of it."
    if kept is None:
        return f"No adapter was cut down to {most} latents: add {most} to measures.sizes."
    goal, low = facts["share"], kept.interval[0]
    reached = "reached" if kept.value >= goal else "not reached"
    if low < goal <= kept.value:
        reached += ", though not by the whole interval"
    n = facts["dictionary"]["latents"]
    return (
        f"“{choice}” reads and writes at most {most} of {n:,} latents each and keeps "
        f"{number(kept.value)} {interval(*kept.interval)} of the dense adapter's success "
        f"({kept.nulls[0].name}: {number(kept.chance)}; {plural(len(facts['seeds']), 'seed')}): "
        f"the goal of {number(goal)} is {reached}."
    )


def _held_out(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> list[str]:
    success = _of(numbers, "behaviour.success", facts["chosen"], facts)
    elsewhere = _of(numbers, "behaviour.false_positives", facts["chosen"], facts)
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
        e = _of(numbers, "latent.overlap", facts["chosen"], facts, side)
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
        rise = _of(numbers, "latent.ablation", facts["chosen"], facts, side)
        share = _of(numbers, "latent.mattering", facts["chosen"], facts, side)
        left = _of(numbers, "latent.left", facts["chosen"], facts, side)
        if rise is None or share is None or left is None:
            continue
        found.append(
            f"Without one latent that is {side} the behaviour's loss rises by "
            f"{number(rise.value)} nats/token, without another by {number(rise.chance)} "
            f"({rise.verdict}); {number(share.value)} of them matter more than 97.5 % of the "
            f"others. Without all of them {number(left.value)} of the behaviour is left, without "
            f"as many others {number(left.chance)}."
        )
    return found


def _flat(numbers: Sequence[Estimate], facts: Mapping[str, Any]) -> list[str]:
    """Which choices leave the factors as flat as they began."""
    found = []
    for choice in facts["choices"]:
        if "L1" not in choice:
            continue
        each = [_of(numbers, "latent.effective", choice, facts, side) for side in _SIDES]
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

"""Gates that the user set: which number each asks for, and whether the adapter came up to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorascope.checking.effect import KL, LOSS, Effect
from lorascope.checking.numbers import KindOutlier
from lorascope.checking.reading import FilesRead
from lorascope.checking.settings import Gates


@dataclass(frozen=True)
class Gate:
    """One gate.

    Attributes:
        option: as it was given, "--max-kl 0.5".
        passed: whether the adapter came up to it; a number that could not be had is a miss.
        message: what was found, in one line.
    """

    option: str
    passed: bool
    message: str


def judge(
    gates: Gates, read: FilesRead, outliers: Sequence[KindOutlier], effect: Effect | None
) -> list[Gate]:
    """Every gate that was set, in the order of the options."""
    found = [_required(one, read, effect) for one in gates.require]
    if gates.max_norm_z is not None:
        found.append(_norm_z(gates.max_norm_z, outliers))
    return [*found, *_of_the_model(gates, effect)]


def _required(what: str, read: FilesRead, effect: Effect | None) -> Gate:
    option = f"--require {what}"
    if what == "live":
        if effect is not None:
            told = "differs from the base" if effect.live else "computes what the base computes"
            return Gate(option, effect.live, f"the model {told} on the texts")
        told = "an update is not zero" if read.may_live else "every update is zero"
        return Gate(option, read.may_live, f"{told}, as far as the files tell")
    findings = [*read.findings, *(effect.findings if effect is not None else ())]
    errors = sorted({finding.rule for finding in findings if finding.level == "error"})
    return Gate(option, not errors, f"errors: {', '.join(errors)}" if errors else "no errors")


def _norm_z(most: float, outliers: Sequence[KindOutlier]) -> Gate:
    known = [one for one in outliers if not math.isnan(one.z)]
    if not known:
        return Gate(f"--max-norm-z {most:g}", False, "no kind has modules enough to have a score")
    worst = max(known, key=lambda one: abs(one.z))
    return Gate(
        f"--max-norm-z {most:g}", abs(worst.z) <= most, f"{worst.largest} has z = {worst.z:.3g}"
    )


def _of_the_model(gates: Gates, effect: Effect | None) -> Iterator[Gate]:
    if effect is None:
        return
    values = {estimate.measure: estimate.value for estimate in effect.estimates}
    asked = (
        ("--max-kl", gates.max_kl, values.get(KL), "KL(adapted ‖ base) is {:.4g} nats/token"),
        ("--max-loss", gates.max_loss, values.get(LOSS), "the loss rises by {:.4g} nats/token"),
        (
            "--max-merge-difference",
            gates.max_merge_difference,
            effect.merged,
            "merged and unmerged logits differ by up to {:.4g}",
        ),
    )
    for option, most, value, words in asked:
        if most is None:
            continue
        # Compared so that NaN is a miss.
        passed = value is not None and value <= most
        told = "it could not be measured" if value is None else words.format(value)
        yield Gate(f"{option} {most:g}", passed, told)

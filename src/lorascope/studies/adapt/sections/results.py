"""The results of an adapt study, one number a condition: its fits of all seeds together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lorascope.models.sites import parse_site
from lorascope.report.result import Results
from lorascope.results import Estimate
from lorascope.results.seeds import over_seeds

SHARE, COST_BEFORE, COST_AFTER = "adapt.share_closed", "adapt.cost_spliced", "adapt.cost_adapted"
GENERAL = "adapt.general_loss"


@dataclass(frozen=True)
class FitCondition:
    """What was fitted around what, seeds apart.

    Attributes:
        fit: its name, `lora-all-r16`: the adapter of the results table's keys.
        fitted: in words, "LoRA everywhere, rank 16".
        kind: its parts, "lora+affine".
        rank: of LoRA.
        adapts: blocks of LoRA, as the settings have them.
        around: name of the dictionary, or of the set.
        dictionaries, sites: by depth.
    """

    fit: str
    fitted: str
    kind: str
    rank: int | None
    adapts: str | tuple[int, ...] | None
    around: str
    dictionaries: tuple[str, ...]
    sites: tuple[str, ...]

    @property
    def site(self) -> str:
        """As the results table has it."""
        return "+".join(self.sites)


class AdaptResults:
    """The numbers and facts of an adapt study.

    Attributes:
        results: as they were read.
    """

    def __init__(self, results: Results) -> None:
        self.results = results

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that is not an estimate."""
        return self.results.facts

    @cached_property
    def dictionaries(self) -> dict[str, dict[str, Any]]:
        """{name: facts} of the dictionaries."""
        return {str(one["name"]): one for one in self.facts.get("dictionaries", [])}

    @property
    def reference(self) -> str:
        """Name of the reference dictionary."""
        return str(self.facts.get("reference", ""))

    def conditions(self, experiment: str) -> list[FitCondition]:
        """What one experiment fitted, each once, in order."""
        wanted = self.facts.get("experiments", {}).get(experiment, [])
        by_name = {fit["name"]: fit for fit in self.facts.get("fits", [])}
        found = [_condition(by_name[name]) for name in wanted if name in by_name]
        return list(dict.fromkeys(found))

    def number(self, condition: FitCondition, measure: str) -> Estimate | None:
        """A measure of a condition, over its seeds; None where it was not taken."""
        place = (condition.fit, condition.site, condition.around)
        return self._of_conditions.get((measure, *place))

    def all_of(self, measure: str) -> list[Estimate]:
        """A measure at every place."""
        return [one for one in self._pooled if one.measure == measure]

    def fits(self, condition: FitCondition) -> list[dict[str, Any]]:
        """The facts of a condition's fits, a seed each."""
        return [fit for fit in self.facts.get("fits", []) if _condition(fit) == condition]

    @cached_property
    def main(self) -> FitCondition | None:
        """LoRA around the reference, as the settings of the fit have it."""
        for experiment in ("reference", "baselines", "scaling", "several"):
            for condition in self.conditions(experiment):
                if condition.kind == "lora" and condition.around == self.reference:
                    return condition
        return None

    @cached_property
    def _pooled(self) -> list[Estimate]:
        """Every number over its seeds: all are measured on the same text."""
        return over_seeds(self.results.numbers, {})

    @cached_property
    def _of_conditions(self) -> dict[tuple[str, str, str, str], Estimate]:
        return {
            (one.measure, one.key.adapter, one.key.site, one.key.dictionary): one
            for one in self._pooled
        }


def level_under(estimate: Estimate, null: str) -> float | None:
    """The level of the null of that name."""
    return next((one.level for one in estimate.nulls if one.name == null), None)


def best(found: Iterable[tuple[FitCondition, Estimate]]) -> tuple[FitCondition, Estimate] | None:
    """The largest of them."""
    pairs = list(found)
    return max(pairs, key=lambda pair: pair[1].value) if pairs else None


def axis(
    found: AdaptResults, conditions_: Sequence[FitCondition], field: str
) -> list[tuple[float, FitCondition]]:
    """Conditions that differ from the reference in one axis alone, with their place on it.

    Args:
        field: "l0", "n_latents" or "block".
    """
    reference = found.dictionaries.get(found.reference)
    if reference is None:
        return []
    chosen = []
    for condition in conditions_:
        one = found.dictionaries.get(condition.around)
        if one is not None and _alike(one, reference, field):
            value = _block(one) if field == "block" else float(one[field])
            chosen.append((value, condition))
    values = {value for value, _ in chosen}
    return sorted(chosen, key=lambda pair: pair[0]) if len(values) > 1 else []


def _alike(one: dict[str, Any], other: dict[str, Any], field: str) -> bool:
    """Whether two dictionaries agree in everything but `field`; published L0s only nearly do."""
    same_l0 = abs(one["l0"] - other["l0"]) <= 0.25 * max(one["l0"], other["l0"])
    agree = {
        "block": one["site"] == other["site"],
        "n_latents": one["n_latents"] == other["n_latents"],
        "l0": same_l0,
    }
    return all(same for name, same in agree.items() if name != field)


def _block(one: dict[str, Any]) -> float:
    return float(parse_site(str(one["site"])).index)


def _condition(fit: dict[str, Any]) -> FitCondition:
    adapts = fit.get("adapts")
    return FitCondition(
        fit=str(fit["fit"]),
        fitted=str(fit["fitted"]),
        kind=str(fit["kind"]),
        rank=fit["rank"],
        adapts=tuple(adapts) if isinstance(adapts, list) else adapts,
        around=str(fit["around"]),
        dictionaries=tuple(fit["dictionaries"]),
        sites=tuple(fit["sites"]),
    )

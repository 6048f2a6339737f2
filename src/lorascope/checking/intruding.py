"""Intruder dimensions and relative size of the largest updates, by the base's own weights."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.checking.spectra import ModuleNumbers
from lorascope.errors import InputError
from lorascope.measures import weight_spectra as spectra
from lorascope.measures.weights import Numbers, WeightSettings, summed_up, update_numbers
from lorascope.models.adapted import AdaptedModel
from lorascope.models.updates import base_weight, weight_update
from lorascope.progress import Advance
from lorascope.results import Estimate, Key
from lorascope.results.labels import ALL_MODULES

MEASURES = ("weights.relative", "weights.intruders")


def intruders(
    model: AdaptedModel,
    name: str,
    modules: Sequence[ModuleNumbers],
    most: int,
    settings: WeightSettings,
    advance: Advance,
) -> list[Estimate]:
    """Of the modules of largest norm, each and all of them; as `measures.weights` has them.

    Args:
        modules: of the adapter's files.
        most: how many base weights are decomposed, the costly part.
    """
    largest = sorted(modules, key=lambda module: -module.norm)[:most]
    found: dict[str, Numbers] = {}
    for module in largest:
        numbers = _of(model, name, module, settings)
        if numbers is not None:
            found[module.path] = numbers
        advance(1)
    if len(found) > 1:
        found = {ALL_MODULES: summed_up(list(found.values())), **found}
    return [
        numbers[measure].estimate(measure, Key(adapter=name, module=path))
        for measure in MEASURES
        for path, numbers in found.items()
        if measure in numbers
    ]


def _of(
    model: AdaptedModel, name: str, module: ModuleNumbers, settings: WeightSettings
) -> Numbers | None:
    """None for what has no base weight that can be decomposed."""
    if module.norm == 0:
        return None
    try:
        weight = base_weight(model, module.path)
        update = weight_update(model, name, module.path)
    except InputError:
        return None
    if not weight.any():
        return None
    base, floor = spectra.decompose(weight), spectra.rounding_norm(weight)
    numbers, _ = update_numbers(base, floor, update, settings, module.path)
    return numbers

"""The directions that each module's update writes into the residual stream, and a dictionary's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.massive import Massive
from lorascope.errors import InputError
from lorascope.geometry import chance
from lorascope.geometry.cosine import max_cosine
from lorascope.measures.alignment import HasDirections, NullSettings
from lorascope.measures.massive import nulls_without, place_without
from lorascope.measures.weights import Number, module_label, summed_up, weighted
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import parse_site
from lorascope.models.updates import stream_gain, updated_modules, weight_update, within_block
from lorascope.randomness import generator
from lorascope.results import Estimate, Key
from lorascope.results.labels import ALL_MODULES
from lorascope.results.null_names import ISOTROPIC

_MOST_DIRECTIONS = 64
_FEWEST_DRAWN = 1024
# Of the largest singular value, what a rounding leaves of a direction projected out.
_NOTHING = 1e-5
_MEASURE = "weights.written_cosine"
_COLUMNS = (
    *("adapter", "site", "module", "index", "size", "share", "latent", "cosine"),
    *("null", "chance", "chance_high"),
)


@dataclass(frozen=True, eq=False)
class WrittenDirections:
    """What one module's update adds to the residual stream.

    Attributes:
        module: `layers.3.mlp.down_proj`.
        directions: orthonormal, largest first, at most 64; signs are arbitrary.
        sizes: the singular value of each.
        energy: Σ σ² of all, those beyond the 64th too.
    """

    module: str
    directions: Float[Tensor, "r d_model"]
    sizes: Float[Tensor, " r"]
    energy: float


@dataclass(frozen=True)
class WrittenView:
    """Everything `written_view` finds.

    Attributes:
        estimates: of every module that writes, and of all together.
        directions: a row for each direction: `adapter, site, module, index`, `size` (singular
            value), `share` of the module's energy, the `latent` whose direction is nearest either
            way round, their |`cosine`|, and of single directions under the headline `null` the mean
            `chance` and the 97.5 % quantile `chance_high`.
    """

    estimates: list[Estimate]
    directions: pd.DataFrame


@torch.no_grad()
def written(model: AdaptedModel, adapter: str, site: str | None = None) -> list[WrittenDirections]:
    """What each module's update writes, for modules whose output is added to the stream.

    With `site` only those that come before it. Where a norm stands between, its weight counts
    (`stream_gain`). Modules whose update is zero are left out.

    Raises:
        InputError: no such adapter, or `site` is no block's output.
    """
    last, info = None if site is None else parse_site(site).index, model.info(adapter)
    with ExitStack() as stack:
        if info.null_of and not info.kind:
            # Drawn into the fine-tune's weights, and there only while it is shown.
            stack.enter_context(model.variant(adapter))
        return list(_written(model, adapter, last))


def _written(model: AdaptedModel, adapter: str, last: int | None) -> Iterator[WrittenDirections]:
    for module in updated_modules(model, adapter):
        place = within_block(model, module)
        if last is not None and place is not None and place[0] > last:
            continue
        gain = stream_gain(model, module)
        if gain is None:
            continue
        delta = weight_update(model, adapter, module).svd()
        if not len(delta.S):
            continue
        # V is orthonormal, so it leaves the singular values and left vectors as they are.
        U, S, _ = torch.linalg.svd(gain.to(delta.U)[:, None] * delta.U * delta.S, False)
        kept = slice(_MOST_DIRECTIONS)
        label, energy = module_label(model, module), float(S.square().sum())
        yield WrittenDirections(label, U.T[kept].float(), S[kept], energy)


@torch.no_grad()
def written_view(
    model: AdaptedModel,
    adapter: str,
    dictionary: HasDirections,
    place: Key,
    nulls: NullSettings,
    massive: Massive | None = None,
) -> WrittenView:
    """How close the directions written before `place.site` come to a dictionary's.

    Estimates are at `place` with the module, or `ALL_MODULES`. Nothing where no
    module of the adapter writes into the stream. Random directions are drawn once, at most
    `nulls.max_directions` of each null, and shared out among the modules.

    Args:
        adapter: one of the model's adapters or null adapters.
        nulls: with `repeats` of 0 there are no chance levels: a null adapter's numbers are draws of
            one.
        massive: what is projected out of everything first; the place then says so.

    Raises:
        InputError: as for `written`; or the dictionary is of another width.
    """
    if not (modules := written(model, adapter, place.site or None)):
        return WrittenView([], pd.DataFrame(columns=list(_COLUMNS)))
    targets = dictionary.directions.detach()
    if targets.shape[1] != model.d_model:
        raise InputError(
            f"the dictionary's directions are {targets.shape[1]} wide, the model's stream "
            f"{model.d_model}; give a dictionary of this model"
        )
    if massive:
        place, nulls = place_without(place), nulls_without(nulls, massive)
        modules, targets = written_without(modules, massive), massive.without(targets)
        if not modules:
            return WrittenView([], pd.DataFrame(columns=list(_COLUMNS)))
    pools = _pools(targets, max(len(w.sizes) for w in modules), nulls) if nulls.repeats else {}
    reference = _reference(pools)
    numbers, rows = {}, []
    for one in modules:
        cosines, latents = _nearest(one.directions.to(targets.device), targets)
        numbers[one.module] = _number(one, cosines, pools, nulls)
        where = {"adapter": adapter, "site": place.site, "module": one.module}
        columns = (one.sizes.tolist(), cosines.tolist(), latents.tolist())
        for i, (size, cosine, latent) in enumerate(zip(*columns, strict=True)):
            row = {"index": i, "size": size, "share": size**2 / one.energy}
            rows.append({**where, **row, "latent": latent, "cosine": cosine, **reference})
    together = summed_up([{_MEASURE: number} for number in numbers.values()])[_MEASURE]
    estimates = [
        number.estimate(_MEASURE, replace(place, module=module))
        for module, number in {**numbers, ALL_MODULES: together}.items()
    ]
    return WrittenView(estimates, pd.DataFrame(rows, columns=list(_COLUMNS)))


def _reference(pools: Mapping[str, Float[Tensor, " drawn"]]) -> dict[str, str | float]:
    """The headline null of single directions; none without nulls."""
    if not pools:
        return {"null": "", "chance": math.nan, "chance_high": math.nan}
    headline, pool = next(iter(pools.items()))
    return {
        "null": headline,
        "chance": float(pool.mean()),
        "chance_high": float(pool.double().quantile(0.975)),
    }


def written_without(
    modules: Sequence[WrittenDirections], massive: Massive
) -> list[WrittenDirections]:
    """What each module's update writes, without what is massive; sizes and directions anew.

    A module that writes nothing else is left out. What lies beyond the leading 64 directions of an
    update stays in its energy whole.
    """
    found = []
    for one in modules:
        matrix = massive.without(one.directions * one.sizes.to(one.directions)[:, None])
        _, sizes, directions = torch.linalg.svd(matrix.double(), full_matrices=False)
        kept = sizes > _NOTHING * one.sizes.max()
        beyond = one.energy - float(one.sizes.double().square().sum())
        if kept.any():
            found.append(
                WrittenDirections(
                    one.module,
                    directions[kept].to(one.directions),
                    sizes[kept].to(one.sizes),
                    float(sizes.square().sum()) + max(0.0, beyond),
                )
            )
    return found


def _nearest(
    directions: Float[Tensor, "n d"], targets: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Largest |cosine| with a target and which: a singular vector has no sign of its own."""
    forth, there = max_cosine(directions, targets)
    back, here = max_cosine(-directions, targets)
    return torch.maximum(forth, back).cpu(), torch.where(forth >= back, there, here).cpu()


def _pools(
    targets: Float[Tensor, "m d"], rank: int, nulls: NullSettings
) -> dict[str, Float[Tensor, " drawn"]]:
    """Each null's name and the largest |cosine| of many of its directions."""
    n = min(nulls.max_directions, max(_FEWEST_DRAWN, nulls.repeats * rank))
    n = max(n, rank)
    return {
        name: _nearest(drawn.to(targets.device), targets)[0]
        for name, drawn in _drawn(n, targets, nulls)
    }


def _drawn(
    n: int, targets: Float[Tensor, "m d"], nulls: NullSettings
) -> Iterator[tuple[str, Float[Tensor, "n d"]]]:
    for name, root in nulls.roots(targets):
        random = generator(nulls.seed, "written", name)
        yield name, chance.directions_from_root(n, root, random)
    random = generator(nulls.seed, "written", ISOTROPIC)
    yield ISOTROPIC, chance.isotropic(n, targets.shape[1], random)


def _number(
    one: WrittenDirections, cosines: Tensor, pools: Mapping[str, Tensor], nulls: NullSettings
) -> Number:
    value, interval = weighted(cosines, one.sizes.cpu())
    draws = {}
    for name, pool in pools.items():
        random = generator(nulls.seed, "written", name, one.module)
        picks = (
            torch.randperm(len(pool), generator=random)[: len(cosines)]
            for _ in range(nulls.repeats)
        )
        draws[name] = [weighted(pool[pick], one.sizes.cpu())[0] for pick in picks]
    return Number(value, len(cosines), draws, interval)

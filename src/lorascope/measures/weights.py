"""What an adapter did to the weights: size, spectrum, intruder dimensions, alignment with W₀.

On two cores a 4096 × 4096 module takes about 10 s for W₀, shared by all adapters, and 2 s an
adapter of rank 16 with 20 draws. DoRA and full fine-tunes, whose updates have full rank, take
minutes a module at that size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.errors import InputError
from lorascope.geometry.precision import double
from lorascope.measures import weight_spectra as spectra
from lorascope.measures.definitions import DEFINITIONS
from lorascope.models.adapted import AdaptedModel
from lorascope.models.other_changes import other_changes
from lorascope.models.sites import Site
from lorascope.models.updates import (
    LoraUpdate,
    Svd,
    Update,
    base_weight,
    updated_modules,
    weight_update,
    within_block,
)
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.labels import ALL_MODULES
from lorascope.results.null_names import RANDOM_ENTRIES, RANDOM_FACTORS, RANDOM_UPDATE, ROUNDING
from lorascope.stats import intervals

# An update of higher rank (a full fine-tune's) gets fewer draws: each costs as much as its SVD.
_HIGH_RANK, _FEW_DRAWS = 512, 3
_SPECTRUM_ROWS = 64
_SPECTRUM_COLUMNS = (
    *("adapter", "module", "index", "update", "chance", "chance_low", "chance_high"),
    *("base", "adapted", "cosine"),
)
_BOUNDS = {
    "share": (0.0, 1.0),
    "cosine": (0.0, 1.0),
    "vectors/module": (0.0, math.inf),
    "dimensions": (1.0, math.inf),
    "ratio": (0.0, math.inf),
    "weight units": (0.0, math.inf),
}


@dataclass(frozen=True)
class WeightSettings:
    """How the weights are looked at.

    Attributes:
        k: how many leading left singular vectors of W₀ + ΔW may be intruders.
        epsilon: a vector is one if its largest |cosine| is below this.
        subspace: dimensions of W₀'s leading singular subspaces; at most a quarter of what W₀ spans.
        repeats: draws of each null.
        seed: of the draws.
    """

    k: int = 10
    epsilon: float = 0.5
    subspace: int = 64
    repeats: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or self.subspace < 1 or not 0 < self.epsilon <= 1:
            raise InputError(
                f"weights with k={self.k}, epsilon={self.epsilon}, subspace={self.subspace}: "
                "choose k and subspace of 1 or more and epsilon above 0 and up to 1"
            )
        if self.repeats < 2:
            raise InputError(f"{self.repeats} draws of a null have no spread; ask for 2 or more")

    def randoms(self, rank: int, *names: object) -> Iterator[torch.Generator]:
        """A generator for each draw that an update of this rank gets."""
        draws = self.repeats if rank <= _HIGH_RANK else min(self.repeats, _FEW_DRAWS)
        return (generator(self.seed, *names, i) for i in range(draws))


@dataclass(frozen=True)
class Number:
    """One measure of one module, with its draws, so that modules can be summed up.

    Attributes:
        value: the number.
        n: how many units it is made of.
        draws: null → the number in each of its draws; a single one for a null without randomness.
        interval: 95 % interval of `value`.
    """

    value: float
    n: int
    draws: Mapping[str, Sequence[float]] = field(default_factory=dict)
    interval: intervals.Interval = intervals.UNKNOWN

    def estimate(self, measure: str, place: Key) -> Estimate:
        """The number with its chance levels."""
        unit = DEFINITIONS[measure].unit
        chances = []
        for null, drawn in self.draws.items():
            low, high = intervals.prediction_interval(drawn) if len(drawn) > 1 else (drawn[0],) * 2
            low, high = intervals.within((low, high), *_BOUNDS[unit])
            level = min(max(math.fsum(drawn) / len(drawn), low), high)
            chances.append(Null(null, level, low, high))
        interval = intervals.within(self.interval, *_BOUNDS[unit])
        return Estimate(measure, self.value, interval, self.n, unit, tuple(chances), place)


Numbers = Mapping[str, Number]


@dataclass(frozen=True)
class WeightsView:
    """Everything `weights_view` finds.

    Attributes:
        estimates: of every module, of every block with several of them, and of all together.
        spectra: a row for each of the first 64 singular values of each update: `adapter, module,
            index, update`, of random updates of equal norm `chance, chance_low, chance_high`, of W₀
            `base`; for the first k, of W₀ + ΔW `adapted`, and `cosine`, the largest of that left
            singular vector with one of W₀'s. Empty cells are nan.
        left_out: {adapter: {path: what it is}} of all that the adapters change and no number here
            is about.
    """

    estimates: list[Estimate]
    spectra: pd.DataFrame
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)


@torch.no_grad()
def weights_view(
    model: AdaptedModel,
    adapters: Sequence[str] | None = None,
    settings: WeightSettings | None = None,
) -> WeightsView:
    """Norms, spectra, intruder dimensions and alignment of what adapters add to W₀.

    `key.module` is the module (`layers.3.mlp.down_proj`), its block (`layers.3`) or
    `ALL_MODULES`. Takes LoRA in all scalings, DoRA, and full fine-tunes; all adapters by default. A
    module whose update is zero has norms alone. What an adapter changes that is no matrix, or that
    stands beside a base weight of zeros, is named in `left_out`.

    Raises:
        InputError: no such adapter.
    """
    settings = settings or WeightSettings()
    names = model.adapters if adapters is None else tuple(adapters)
    touched = {name: updated_modules(model, name) for name in names}
    left_out = {name: other_changes(model, name) for name in names}
    found: dict[str, dict[str, Numbers]] = {name: {} for name in names}
    rows: list[dict[str, object]] = []
    for module in dict.fromkeys(m for modules in touched.values() for m in modules):
        weight, label = base_weight(model, module), module_label(model, module)
        if not weight.any():
            for name in (n for n in names if module in touched[n]):
                left_out[name][module] = "an update of base weights that are zero"
            continue
        base, floor = spectra.decompose(weight), spectra.rounding_norm(weight)
        for name in (n for n in names if module in touched[n]):
            update = weight_update(model, name, module)
            found[name][label], spectrum = update_numbers(base, floor, update, settings, label)
            rows += [{"adapter": name, "module": label, **row} for row in spectrum]
    estimates = [
        number.estimate(measure, Key(adapter=name, rank=model.info(name).rank, module=module))
        for name, modules in found.items()
        for module, numbers in with_sums(modules).items()
        for measure, number in numbers.items()
    ]
    return WeightsView(estimates, pd.DataFrame(rows, columns=list(_SPECTRUM_COLUMNS)), left_out)


def module_label(model: AdaptedModel, module: str) -> str:
    """`layers.3.mlp.down_proj` in every architecture; outside the blocks the path as it is."""
    place = within_block(model, module)
    return module if place is None else f"{Site(place[0]).name}.{place[1]}"


def update_numbers(
    base: Svd, floor: float, update: Update, settings: WeightSettings, label: str
) -> tuple[Numbers, list[dict[str, float]]]:
    """All numbers of one module (measure → number), and its rows of the spectra.

    Args:
        base: W₀, decomposed.
        floor: norm of W₀'s own rounding.
        label: names the draws.
    """
    of_base, norm = float(base.S.norm()), update.norm()
    numbers = {
        "weights.norm": Number(norm, 1, {ROUNDING: [floor]}),
        "weights.relative": Number(norm / of_base, 1, {ROUNDING: [floor / of_base]}),
    }
    if norm == 0:
        return numbers, []
    delta = Svd(*(double(part) for part in update.svd()))
    factored, r = isinstance(update, LoraUpdate), len(delta.S)
    shape = (len(delta.U), len(delta.V))
    plain = [
        norm * spectra.random_spectrum(shape, r if factored else min(shape), factored, random)
        for random in settings.randoms(r, "random spectrum", label)
    ]
    null = RANDOM_FACTORS if factored else RANDOM_ENTRIES
    ranks, drawn = spectra.effective_ranks(delta.S), [spectra.effective_ranks(S) for S in plain]
    first = [float(S[0] / base.S[0]) for S in plain]
    numbers |= {
        "weights.largest": Number(float(delta.S[0] / base.S[0]), 1, {null: first}),
        "weights.effective_rank": Number(ranks[0], r, {null: [d[0] for d in drawn]}),
        "weights.participation": Number(ranks[1], r, {null: [d[1] for d in drawn]}),
    }
    against_base, adapted, cosines = _against_base(base, delta, settings, label)
    return numbers | against_base, _spectrum(base.S, delta.S, plain, adapted, cosines)


def _against_base(
    base: Svd, delta: Svd, settings: WeightSettings, label: str
) -> tuple[dict[str, Number], Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Intruders and alignment beside random updates; singular values and cosines of W₀ + ΔW."""
    n, r = len(base.S), len(delta.S)
    m = max(1, min(settings.subspace, n // 4))
    S, sizes = base.S.cpu(), delta.S.cpu()
    sides = (spectra.coordinates(delta.U, base.U), spectra.coordinates(delta.V, base.V))
    adapted, cosines = spectra.leading_of_sum(S, sides[0], sizes, sides[1], settings.k)
    intruders, of_sides = [], ([], [])  # type: tuple[list[float], tuple[list[float], list[float]]]
    for random in settings.randoms(r, RANDOM_UPDATE, label):
        drawn = [spectra.random_coordinates(len(v), r, n, random) for v in (delta.U, delta.V)]
        _, null = spectra.leading_of_sum(S, drawn[0], sizes, drawn[1], settings.k)
        intruders.append(float((null < settings.epsilon).sum()))
        for levels, vectors in zip(of_sides, drawn, strict=True):
            levels.append(weighted(vectors[:m].square().sum(0), sizes)[0])
    count = float((cosines < settings.epsilon).sum())
    numbers = {"weights.intruders": Number(count, len(cosines), {RANDOM_UPDATE: intruders})}
    for side, vectors, levels in zip(("left", "right"), sides, of_sides, strict=True):
        value, interval = weighted(vectors[:m].square().sum(0), sizes)
        number = Number(value, r, {RANDOM_UPDATE: levels}, interval)
        numbers[f"weights.alignment.{side}"] = number
    return numbers, adapted, cosines


def weighted(
    values: Float[Tensor, " r"], sizes: Float[Tensor, " r"]
) -> tuple[float, intervals.Interval]:
    """Mean of the values weighted by sizes², and its jackknife interval over the directions."""
    energies = sizes.double().square()
    parts = energies * values.double()
    value = float(parts.sum() / energies.sum())
    without = (parts.sum() - parts) / (energies.sum() - energies)
    return value, intervals.jackknife_interval(value, without.tolist())


def _spectrum(
    base: Tensor, delta: Tensor, plain: Sequence[Tensor], adapted: Tensor, cosines: Tensor
) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for i in range(min(max(len(delta), len(adapted)), _SPECTRUM_ROWS)):
        row: dict[str, float] = {"index": i}
        if i < len(base):
            row |= {"base": float(base[i])}
        if i < len(delta):
            drawn = [float(S[i]) for S in plain]
            low, high = intervals.prediction_interval(drawn)
            row |= {"update": float(delta[i]), "chance": math.fsum(drawn) / len(drawn)}
            row |= {"chance_low": max(low, 0.0), "chance_high": high}
        if i < len(adapted):
            row |= {"adapted": float(adapted[i]), "cosine": float(cosines[i])}
        rows.append(row)
    return rows


def with_sums(modules: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """The modules' numbers, then those of blocks with several of them, then of all together."""
    blocks: dict[str, list[Numbers]] = {}
    for label, numbers in modules.items():
        if block := block_of(label):
            blocks.setdefault(block, []).append(numbers)
    groups = {block: summed_up(several) for block, several in blocks.items() if len(several) > 1}
    whole = {ALL_MODULES: summed_up(list(modules.values()))} if modules else {}
    return {**modules, **groups, **whole}


def block_of(module: str) -> str:
    """`layers.3` for `layers.3.mlp.down_proj` and for itself; nothing outside the blocks."""
    first, _, rest = module.partition(".")
    index = rest.partition(".")[0]
    return f"{first}.{index}" if first == "layers" and index.isdigit() else ""


def summed_up(several: Sequence[Numbers]) -> dict[str, Number]:
    """Several modules as one: norms as of one long vector, all else as a mean over modules.

    Draw i of a mean is the mean of the modules' draws i. Intervals are over modules: a jackknife
    for the relative norm, normal for means; the norm itself has none.
    """
    measures = dict.fromkeys(measure for numbers in several for measure in numbers)
    found = {}
    for measure in measures:
        parts = [numbers[measure] for numbers in several if measure in numbers]
        if measure == "weights.norm":
            draws = {ROUNDING: [math.hypot(*(p.draws[ROUNDING][0] for p in parts))]}
            found[measure] = Number(math.hypot(*(p.value for p in parts)), len(parts), draws)
        elif measure == "weights.relative":
            found[measure] = _relative([numbers["weights.norm"] for numbers in several], parts)
        else:
            found[measure] = _mean(parts)
    return found


def _relative(norms: Sequence[Number], ratios: Sequence[Number]) -> Number:
    floors = [number.draws[ROUNDING][0] for number in norms]
    # The floors tell ‖W₀‖ of modules with a zero update too.
    bases = [f / ratio.draws[ROUNDING][0] for f, ratio in zip(floors, ratios, strict=True)]
    ours, theirs = [number.value**2 for number in norms], [base**2 for base in bases]
    value = math.sqrt(math.fsum(ours) / math.fsum(theirs))
    without = [
        math.sqrt((math.fsum(ours) - a) / (math.fsum(theirs) - b))
        for a, b in zip(ours, theirs, strict=True)
        if len(ours) > 1
    ]
    floor = math.hypot(*floors) / math.hypot(*bases)
    interval = intervals.jackknife_interval(value, without)
    return Number(value, len(norms), {ROUNDING: [floor]}, interval)


def _mean(parts: Sequence[Number]) -> Number:
    values = torch.tensor([part.value for part in parts], dtype=torch.float64)
    draws = {}
    for null in parts[0].draws:
        # Modules of very high rank have fewer draws than the others.
        together = zip(*(part.draws[null] for part in parts), strict=False)
        draws[null] = [math.fsum(drawn) / len(parts) for drawn in together]
    interval = intervals.normal_interval(values)
    return Number(float(values.mean()), len(parts), draws, interval)


def weights_table(estimates: Sequence[Estimate]) -> pd.DataFrame:
    """One row an adapter and module (or block, or all), made from estimates.

    Columns: `adapter, rank, block, module`, then for each measure its value, `… chance`, `… low`
    and `… high` (of the headline null) and `… verdict`, all named by the definitions' titles; and
    `activations' effective rank`, of the delta at the block's output where the estimates hold it.
    """
    activations = {
        (e.key.adapter, e.key.site): e.value for e in estimates if e.measure == "delta_rank"
    }
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for e in estimates:
        if not e.measure.startswith("weights.") or e.key.site:
            continue
        place, block, title = e.key, block_of(e.key.module), DEFINITIONS[e.measure].title
        row = rows.setdefault((place.adapter, place.module), {})
        row |= {"adapter": place.adapter, "rank": place.rank, "block": block}
        row |= {"module": place.module, title: e.value, f"{title} verdict": e.verdict}
        headline = e.headline
        if headline is not None:
            levels = {"chance": headline.level, "low": headline.low, "high": headline.high}
            row |= {f"{title} {word}": level for word, level in levels.items()}
        row["activations' effective rank"] = activations.get((place.adapter, block), math.nan)
    return pd.DataFrame(list(rows.values()))

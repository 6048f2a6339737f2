"""Arithmetic, memory and disk of each part of an adapt study, from its settings and sizes.

A product and a sum are two operations; with P the parameters of the blocks, H those of the head,
d the width and n the latents, a token of a fit takes

    2 P + 2 H of the original    2 P a + 2 P b + 6 H + 12 d n of the spliced model, there and back

b being the share of the blocks that lies behind the first change, and a the share behind the first
site where everything fitted lies there, else 1. The first 2 P are taken once a seed: other fits on
the same batches have the original's final states from it, as far as these are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lorascope.activations.streamed import BATCH_TOKENS
from lorascope.fits.dictionary_training import MIXED
from lorascope.models.shapes import Shape
from lorascope.outputs.divergence import CHUNK
from lorascope.outputs.kept import KEPT_BYTES
from lorascope.outputs.scoring import BATCH_TOKENS as SCORED_TOKENS
from lorascope.studies.adapt.cells import FitCell, FitGrid
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.training.architectures import TopK
from lorascope.workflows.cost import STEP_SECONDS, CostPart, operations_a_row, reached

# Latents of a dictionary that is not at hand, where its address does not say.
_USUAL_LATENTS = 32768
# Seconds of one step of a fit beside its products: autograd, hooks and the optimiser.
_FIT_STEP_SECONDS = 0.02


@dataclass(frozen=True)
class Widths:
    """{name: latents} of a study's dictionaries, and which of them had to be guessed."""

    latents: dict[str, int]
    guessed: tuple[str, ...] = ()


def widths(asked: FitGrid, d: int) -> Widths:
    """Latents of every dictionary: as asked for, or as a brought one's address says."""
    found: dict[str, int] = {}
    guessed = []
    for name, one in asked.dictionaries.items():
        if one.n_latents is not None:
            found[name] = one.n_latents
        else:
            said = _said(one.address, d)
            found[name] = said or _USUAL_LATENTS
            if not said:
                guessed.append(name)
    return Widths(found, tuple(guessed))


def _said(address: str, d: int) -> int | None:
    """The width an address names: `width_16k`, `32x`; None where it names none."""
    for part in address.replace("-", "/").replace(":", "/").split("/"):
        text = part.removeprefix("width_")
        number, unit = text[:-1], text[-1:].lower()
        if number.isdigit() and (unit == "x" or (unit in "km" and text != part)):
            return int(number) * {"k": 1024, "m": 2**20, "x": d}[unit]
    return None


def dictionary_training(
    study: AdaptStudy, shape: Shape, asked: FitGrid, device: str, products: torch.dtype
) -> CostPart:
    """The stream computed once a site, and every dictionary trained on it."""
    train = study.dictionaries.train
    assert train is not None
    trained = [one for one in asked.dictionaries.values() if not one.address]
    flops, steps, held = 0.0, 0.0, 0.0
    for site in dict.fromkeys(one.site for one in trained):
        flops += 2.0 * _before(shape, site) * train.tokens
    share = 0.5
    for one in trained:
        operations, share = operations_a_row(one.architecture, shape.d_model, device)
        flops += operations * train.tokens
        steps += train.tokens / train.batch
        held += 6 * 4 * 2 * shape.d_model * (one.n_latents or 0)
    rows = 2 * min(train.tokens, MIXED) * shape.d_model * 4
    inside = BATCH_TOKENS * (6 * shape.d_model + 3 * shape.d_mlp) * 4
    memory = shape.parameters * 4 + int(held) + rows + inside
    return CostPart(
        "dictionary training", flops, memory, products, min(share, 0.3), steps * STEP_SECONDS
    )


def fits(
    study: AdaptStudy,
    shape: Shape,
    cells: list[FitCell],
    latents: dict[str, int],
    weights: torch.dtype,
    products: torch.dtype,
    tokens: int | None = None,
    sharing: bool = True,
) -> CostPart:
    """All fits, their evaluations on held-out text and their random draws.

    Args:
        weights, products: types of the model's weights and of its products.
        tokens: of one fit, where it is not the study's budget.
        sharing: fits take the original's states from each other.
    """
    fit, budget = study.fit, tokens or study.fit.tokens
    held_out, looks = study.measure_tokens, study.fit.evaluations
    known = _kept(study, shape, cells, weights, budget) if sharing else 0.0
    flops, memory = 0.0, 0
    seen: set[int | tuple[str, ...]] = set()
    for cell in cells:
        inside = sum(4.0 * shape.d_model * latents.get(name, 0) for name in cell.dictionaries)
        whole, head = 2.0 * shape.block_parameters, 2.0 * shape.head_parameters
        back, forward = whole * _behind(shape, cell), whole * (1 - _begun(shape, cell))
        original = 1 - known if cell.seed in seen else 1.0
        flops += budget * (original * whole + forward + back + 4 * head + 3 * inside)
        # Adapted at every look and in the end, where random changes and, with LoRA, both without
        # the splice come beside it. The original and the bare splice are known to other fits.
        ways = looks + (1 + fit.random_draws) * (2 if "lora" in cell.kind else 1)
        flops += held_out * (ways * (forward + head + inside) + (looks + 2) * head)
        others = 1 - known if seen else 1.0
        spliced = 1 - known if cell.dictionaries in seen else 1.0
        flops += held_out * (others * (looks + 1) * whole + spliced * (forward + inside))
        memory = max(memory, _memory(study, shape, cell, latents, weights, products))
        seen |= {cell.seed, cell.dictionaries}
    step = fit.batch * fit.accumulate * study.context
    fixed = len(cells) * budget / step * _FIT_STEP_SECONDS
    return CostPart("fits", flops, memory, products, reached(0.25, shape.d_model), fixed)


def _kept(
    study: AdaptStudy, shape: Shape, cells: list[FitCell], weights: torch.dtype, budget: int
) -> float:
    """The share that is kept of the states that fits take from each other.

    They are no part of the memory that is needed: they lie in what is free of the machine's.
    """
    seeds, splices = {cell.seed for cell in cells}, {cell.dictionaries for cell in cells}
    streams = 1 + any(_begun(shape, cell) > 0 for cell in cells)
    tokens = streams * (len(seeds) * budget + study.measure_tokens)
    tokens += len(splices) * study.measure_tokens
    needed = tokens * shape.d_model * weights.itemsize
    return min(1.0, KEPT_BYTES / needed) if needed else 0.0


def disk(study: AdaptStudy, shape: Shape, asked: FitGrid, latents: dict[str, int]) -> int:
    """Bytes a run folder grows to: dictionaries trained here, fits, and one checkpoint of each."""
    d = shape.d_model
    one = {name: 4 * (2 * d * n + d + n) for name, n in latents.items()}
    trained = [one[name] for name, each in asked.dictionaries.items() if not each.address]
    total = sum(trained) + 3 * max(trained, default=0)
    fitted = [_saved(shape, cell, one) for cell in asked.fits]
    total += sum(fitted) + 3 * max(fitted, default=0)
    times = study.experiments.times
    if times is not None:
        n = times.n_latents or asked.reference.n_latents or 0
        total += 2 * len(times.shares) * 4 * (2 * d * n + d + n)
    return total


def _saved(shape: Shape, cell: FitCell, dictionaries: dict[str, int]) -> int:
    parts, size = cell.kind.split("+"), 0
    if any(part.startswith("lora") for part in parts):
        size += round(4 * (cell.rank or 0) * shape.rank_one_parameters * _adapted(shape, cell))
    if "affine" in parts or "dictionary" in parts:
        size += sum(dictionaries[name] for name in cell.dictionaries)
    return size


def _memory(
    study: AdaptStudy,
    shape: Shape,
    cell: FitCell,
    latents: dict[str, int],
    weights: torch.dtype,
    products: torch.dtype,
) -> int:
    tokens = study.fit.batch * min(study.context, shape.context)
    context = min(study.context, shape.context)
    a_block = 14 * shape.d_model + 5 * shape.d_mlp + 2 * shape.heads * context
    kept_blocks = 1 if study.fit.recompute else max(1, round(shape.blocks * _behind(shape, cell)))
    kept = tokens * a_block * kept_blocks * products.itemsize
    kept += tokens * sum(latents.get(name, 0) for name in cell.dictionaries) * 4
    dictionaries = sum(2 * 4 * shape.d_model * latents.get(n, 0) for n in cell.dictionaries)
    own = 4 * _saved(shape, cell, {n: 8 * shape.d_model * w for n, w in latents.items()})
    scored = 4 * min(CHUNK, SCORED_TOKENS * shape.vocabulary) * 4
    # Final states of all ways that are scored together.
    ways = 4 + 2 * study.fit.random_draws
    scored += ways * SCORED_TOKENS * shape.d_model * weights.itemsize
    return shape.parameters * weights.itemsize + dictionaries + own + kept + scored


def _behind(shape: Shape, cell: FitCell) -> float:
    """Share of the blocks that the way back goes through."""
    first = min(int(site.rpartition(".")[2]) for site in cell.sites) + 1
    if cell.blocks == "all":
        first = 0
    elif isinstance(cell.blocks, tuple) and cell.kind == "lora":
        first = min(cell.blocks)
    return (shape.blocks - first) / shape.blocks


def _begun(shape: Shape, cell: FitCell) -> float:
    """Share of the blocks up to the first site, where everything fitted lies behind it."""
    first = min(int(site.rpartition(".")[2]) for site in cell.sites) + 1
    chosen = cell.blocks if isinstance(cell.blocks, tuple) else ()
    if cell.blocks == "all" or min(chosen, default=first) < first:
        return 0.0
    return first / shape.blocks


def _adapted(shape: Shape, cell: FitCell) -> float:
    """Share of the blocks that carry LoRA."""
    if cell.blocks == "next":
        return len(cell.sites) / shape.blocks
    return (
        len(cell.blocks) / shape.blocks if isinstance(cell.blocks, tuple) else _behind(shape, cell)
    )


def _before(shape: Shape, site: str) -> float:
    """Parameters of the blocks up to a site."""
    return shape.block_parameters * (int(site.rpartition(".")[2]) + 1) / shape.blocks


def times(
    study: AdaptStudy,
    shape: Shape,
    asked: FitGrid,
    device: str,
    weights: torch.dtype,
    products: torch.dtype,
) -> CostPart:
    """A TopK and an end-to-end dictionary, and a LoRA fit at every checkpoint of the first."""
    times_ = study.experiments.times
    assert times_ is not None
    name, d = asked.reference.name, shape.d_model
    n = times_.n_latents or asked.reference.n_latents or _USUAL_LATENTS
    k = times_.k or asked.reference.k or 1
    operations, _ = operations_a_row(TopK(n_latents=n, k=k), d, device)
    site = asked.reference.site
    flops = times_.tokens * (operations + 2.0 * _before(shape, site))
    around = FitCell((name,), (site,), "dictionary", None, None, 0)
    both = [
        fits(
            study,
            shape,
            [around],
            {name: n},
            weights,
            products,
            times_.end_to_end_tokens,
            sharing=False,
        ),
        fits(
            study,
            shape,
            [
                FitCell((name,), (site,), "lora", study.fit.lora.rank, study.fit.lora.blocks, s)
                for s in range(len(times_.shares))
            ],
            {name: n},
            weights,
            products,
            times_.fit_tokens,
            sharing=False,
        ),
    ]
    flops += sum(part.flops for part in both)
    return CostPart(
        "times",
        flops,
        max(p.memory for p in both),
        products,
        both[0].reached,
        sum(p.fixed for p in both),
    )

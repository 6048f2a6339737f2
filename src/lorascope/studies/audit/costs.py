"""Arithmetic, memory and disk of each part of a study, from its settings and sizes.

Arithmetic is counted in floating-point operations of matrix products, a product and a sum being
two; everything else is left to the share of the product speed that a part reaches. Those shares
were read off runs on two cores; on other machines they are a guide to an order of magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch

from lorascope.activations import matching as matched
from lorascope.activations.mixing import WINDOW
from lorascope.activations.noise_floor import COPY_LIMIT
from lorascope.measures import pursuit, recovery, spots
from lorascope.measures.alignment import NullSettings
from lorascope.measures.behaviour import SAMPLED_TOKENS
from lorascope.measures.reconstruction import NULL_REPEATS, NULL_ROWS
from lorascope.models.shapes import Shape
from lorascope.studies.audit.learning import CONTROL_ROWS
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows.cost import (
    FEWEST_ROWS,
    STEP_SECONDS,
    CostPart,
    operations_a_row,
    reached,
)
from lorascope.workflows.reading_cost import reading_part
from lorascope.workflows.sizes import StudySizes

# Prompts of the first look, and new tokens of each.
GLANCED_PROMPTS, GLANCED_TOKENS = 10, 24
# Active latents taken for granted where no setting says.
_USUAL_L0 = 32
# Alternatives that leading latents share between them, and the share of windows a latent fires in.
_ALIKE, _FIRES = 80, 0.6
# Runs of a null adapter until it is matched; windows that adapters are tried on, and that the noise
# floor is measured on; float64 beside float32.
_MATCHING, _CHECKED, _FLOOR, _FINER = 3, 8, 16, 2
# Weight matrices of a block, and seconds that one of an adapter takes beside its products.
_MATRICES, _MATRIX_SECONDS = 7, 0.03
# Draws of each cosine null: isotropic, rotated, and matched to two covariances.
_NULLS = 4


@dataclass(frozen=True)
class StudyCounts:
    """How many there are of what a study multiplies.

    Attributes:
        deepest: blocks run for capture.
        trained: dictionaries trained; of them `controls` on what is made from the deltas, and
            `ablated` for the ablation.
        nulls: null adapters, which go through everything with dictionaries of one seed.
    """

    adapters: int
    sites: int
    deepest: int
    trained: int
    controls: int
    ablated: int = 0
    nulls: int = 0

    @property
    def variants(self) -> int:
        """What the model is run as: the base, adapters and null adapters."""
        return 1 + self.adapters + self.nulls


def capture(
    study: AuditStudy, shape: Shape, sizes: StudySizes, counts: StudyCounts, dtype: torch.dtype
) -> CostPart:
    """Base and every adapter, run over all tokens as far as the deepest site.

    Args:
        dtype: of the model's weights.
    """
    tokens = sizes.probe_tokens + sizes.held_out_tokens
    blocks = shape.block_parameters * counts.deepest / shape.blocks
    batch, width = study.capture.batch_tokens, dtype.itemsize
    context = min(study.capture.context, shape.context)
    streams = 3 * counts.sites * shape.d_model * 4
    inside = (6 * shape.d_model + 3 * shape.d_mlp) * width + 2 * shape.heads * context * 4
    return CostPart(
        "capture",
        2.0 * blocks * tokens * counts.variants,
        shape.parameters * width + batch * (streams + inside),
        dtype,
        reached(0.5, shape.d_model),
    )


def matching(
    study: AuditStudy, shape: Shape, sizes: StudySizes, counts: StudyCounts, dtype: torch.dtype
) -> CostPart:
    """Null adapters run over a few documents until they move the stream as far as their adapter."""
    tokens = min(matched.TOKENS, matched.DOCUMENTS * _window(study, shape, sizes))
    blocks = shape.block_parameters * counts.deepest / shape.blocks
    passes = 1 + counts.adapters + _MATCHING * counts.nulls
    flops = 2.0 * blocks * tokens * passes
    return CostPart(
        "matching", flops, shape.parameters * dtype.itemsize, dtype, reached(0.5, shape.d_model)
    )


def first_look(
    study: AuditStudy, shape: Shape, counts: StudyCounts, dtype: torch.dtype
) -> CostPart:
    """Ten prompts and the study's samples, continued by base and adapters token by token."""
    rows = GLANCED_TOKENS * max(GLANCED_PROMPTS, FEWEST_ROWS)
    rows += study.measures.samples * SAMPLED_TOKENS * FEWEST_ROWS
    whole = 2.0 * (shape.block_parameters + shape.head_parameters)
    flops = whole * (1 + counts.adapters) * rows
    memory = shape.parameters * dtype.itemsize
    return CostPart("first look", flops, memory, dtype, reached(0.5, shape.d_model))


def sanity_checks(
    study: AuditStudy,
    shape: Shape,
    sizes: StudySizes,
    counts: StudyCounts,
    dtype: torch.dtype,
    held: int,
) -> CostPart:
    """Checks of every adapter and the noise floor, on a few windows; and response losses.

    For response losses the passes that capture held-out texts go on behind the deepest site,
    through the map to the vocabulary.
    """
    whole = shape.block_parameters + shape.head_parameters
    before = shape.block_parameters * counts.deepest / shape.blocks
    window = _window(study, shape, sizes)
    flops = 2.0 * (whole - before) * sizes.held_out_tokens * counts.variants
    flops += 2.0 * whole * _CHECKED * window * counts.variants
    passes = 2 + (_FINER if shape.parameters <= COPY_LIMIT else 0)
    flops += 2.0 * before * _FLOOR * window * passes
    return CostPart("sanity checks", flops, held, dtype, reached(0.6, shape.d_model))


def _window(study: AuditStudy, shape: Shape, sizes: StudySizes) -> float:
    """Tokens of a document's first window, about."""
    mean = sizes.held_out_tokens / max(1, sizes.held_out_documents)
    return min(mean, study.capture.context, shape.context)


def reading(
    study: AuditStudy, shape: Shape, counts: StudyCounts, dtype: torch.dtype, held: int
) -> CostPart:
    """The readings of all adapters; see `workflows.reading_cost`."""
    assert study.reading is not None
    nulls = min(study.reading.nulls, counts.nulls // max(1, counts.adapters))
    return reading_part(study.reading, shape, counts.adapters, nulls, counts.sites, dtype, held)


def adapter_training(
    study: AuditStudy, shape: Shape, sizes: StudySizes, dtype: torch.dtype, products: torch.dtype
) -> CostPart:
    """Forward and back through the frozen model: 4 operations a parameter and token.

    Each rank measures its held-out records after training, and the first before it.

    Args:
        dtype: of the model's weights.
    """
    assert study.train is not None
    training = study.train.training
    ranks = len(training.each(study.train.seeds))
    whole = shape.block_parameters + shape.head_parameters
    learned = training.steps * training.batch * sizes.padded_tokens
    measured = sizes.records * training.held_out * sizes.record_tokens
    flops = whole * (4.0 * learned * ranks + 2.0 * measured * (ranks + 1))
    context = min(training.context, shape.context)
    # Norms, gates and attention are kept in float32, attention six times where it is written out.
    kept = shape.blocks * (16 * shape.d_model + 4 * shape.d_mlp + 6 * shape.heads * context)
    passing = training.batch * context * (kept + 3 * shape.vocabulary) * 4
    # Parameters, gradients and Adam's two moments of the largest adapter.
    own = 4 * 4 * max(training.ranks) * shape.rank_one_parameters
    memory = shape.parameters * dtype.itemsize + own + passing
    return CostPart("adapter training", flops, memory, products, reached(0.3, shape.d_model))


def dictionary_training(
    study: AuditStudy,
    d: int,
    sizes: StudySizes,
    counts: StudyCounts,
    device: str,
    dtype: torch.dtype,
) -> CostPart:
    """All dictionaries; those of one site and adapter are held at once, one a seed."""
    settings = study.dictionaries
    n, fitting = settings.architecture.n_latents, settings.fitting.within(sizes.probe_tokens)
    real = counts.trained - counts.controls - counts.ablated
    short = fitting
    if study.ablation is not None and study.ablation.epochs is not None:
        short = fitting.model_copy(update={"epochs": study.ablation.epochs})
    operations, reached = operations_a_row(settings.architecture, d, device)
    rows = 2 * min(sizes.probe_tokens, WINDOW) * d * 4
    # Parameters, gradients and Adam's two moments; maps with the gain in them.
    held = len(settings.seeds) * (6 * 4 * 2 * d * n + 4 * dtype.itemsize * fitting.batch * n)
    steps = (
        fitting.steps(sizes.probe_tokens) * real
        + fitting.steps(min(sizes.probe_tokens, CONTROL_ROWS)) * counts.controls
        + short.steps(sizes.probe_tokens) * counts.ablated
    )
    flops = operations * fitting.batch * steps
    return CostPart(
        "dictionary training", flops, rows + held, dtype, reached, fixed=steps * STEP_SECONDS
    )


def measures(study: AuditStudy, d: int, sizes: StudySizes, counts: StudyCounts) -> CostPart:
    """Reconstruction, cosines, angles and CKA of every condition with their nulls."""
    settings, n = study.measures, study.dictionaries.architecture.n_latents
    seeds, rows = len(study.dictionaries.seeds), min(study.measures.rows, sizes.held_out_tokens)
    conditions = counts.adapters * counts.sites
    nulls = _NULLS * settings.repeats
    through = 4.0 * d * n * (8 * rows + 3 * NULL_REPEATS * min(rows, NULL_ROWS))
    cosines = 2.0 * d * n * (n + nulls * min(n, NullSettings().max_directions))
    angles = (1 + nulls) * (2.0 * d * d * n + 10.0 * d**3)
    similar = 2 * 6.0 * d * d * rows
    own_bases = counts.sites - len(study.dictionaries.base)
    pairs = conditions * (seeds + comb(seeds, 2)) + own_bases * comb(seeds, 2)
    flops = conditions * (seeds * through + similar) + pairs * (cosines + angles)
    # A draw is measured once, without references.
    draws = counts.sites * counts.nulls + counts.controls
    alone = 4.0 * d * n * 8 * rows + 2.0 * d * n * n + 2.0 * d * d * n + 10.0 * d**3
    flops += draws * (alone + similar)
    memory = 8 * rows * d * 4 + 4 * 4 * 2048 * n + 4 * 8 * d * n
    return CostPart("measures", flops, memory, torch.float32, reached(0.8, d))


def pursued(study: AuditStudy, d: int, sizes: StudySizes, counts: StudyCounts) -> CostPart:
    """Matching pursuit on both dictionaries of each condition's first seed, and on its nulls.

    k is the delta dictionary's L0, which is known beforehand only where it is set.
    """
    made = study.dictionaries.architecture
    k = getattr(made, "k", None) or getattr(made, "target_l0", None) or _USUAL_L0
    rows = min(pursuit.MOST_ROWS, sizes.held_out_tokens)
    searches = 2 * (1 + 2 * pursuit.NULL_REPEATS)
    each = 2.0 * d * made.n_latents * k * rows
    drawn = 2 * counts.sites * counts.nulls + counts.controls
    memory = 4 * rows * (made.n_latents + 3 * d)
    flops = each * (searches * counts.adapters * counts.sites + drawn)
    return CostPart("pursuit", flops, memory, torch.float32, 0.5)


def effects(
    study: AuditStudy,
    shape: Shape,
    sizes: StudySizes,
    counts: StudyCounts,
    dtype: torch.dtype,
    held: int,
) -> CostPart:
    """Passes of the model for functional recovery and single latents.

    Passes that start after a site run the blocks behind it; sites are taken to lie evenly.
    """
    settings = study.measures
    tokens = min(settings.effect_tokens, sizes.held_out_tokens)
    few = min(spots.MOST_TOKENS, tokens)
    whole = 2.0 * (shape.block_parameters + shape.head_parameters)
    behind = shape.block_parameters * (1 - counts.deepest / (2 * shape.blocks))
    part = 2.0 * (behind + shape.head_parameters)
    # Exact delta and difference; of two dictionaries the reconstruction, the bias, rotations;
    # mean, random and other documents' deltas; dictionaries trained on Gaussian rows.
    spliced = 2 + 2 * (2 + recovery.NULL_REPEATS) + 1 + 2 * recovery.NULL_REPEATS
    spliced += study.controls.gaussian_dictionaries
    # Own direction, removed and added; then alternatives where they fire, which latents share.
    alike = settings.latents + _ALIKE if settings.latents else 0
    single = 2 * settings.latents + 2 * _FIRES * alike
    passes = 4 * whole * tokens + counts.sites * part * (spliced * tokens + single * few)
    of_null = 3 * whole * tokens + counts.sites * part * 4 * tokens
    flops = counts.adapters * passes + counts.nulls * of_null
    return CostPart("effects", flops, held, dtype, reached(0.7, shape.d_model))


def weights(shape: Shape, counts: StudyCounts) -> CostPart:
    """Singular values and vectors of every weight matrix; each adapter adds its own share."""
    flops = 10.0 * shape.block_parameters * shape.d_model * (1 + 0.2 * counts.adapters)
    memory = 8 * 4 * shape.d_model * max(shape.d_model, shape.d_mlp)
    fixed = _MATRIX_SECONDS * _MATRICES * shape.blocks * counts.adapters
    return CostPart("weights", flops, memory, torch.float64, reached(0.7, shape.d_model), fixed)


def disk(study: AuditStudy, shape: Shape, sizes: StudySizes, counts: StudyCounts) -> int:
    """Bytes a run folder grows to.

    Rows and their token fields, adapters, dictionaries, and while these are trained one checkpoint
    a seed (parameters and two moments).
    """
    d, n = shape.d_model, study.dictionaries.architecture.n_latents
    tokens = sizes.probe_tokens + sizes.held_out_tokens
    width = study.capture.dtype.itemsize
    activations = tokens * (counts.sites * counts.variants * d * width + 25)
    one = 4 * (2 * d * n + d + n)
    each = study.train.training.each(study.train.seeds).values() if study.train else ()
    ranks = sum(one.ranks[0] for one in each)
    adapters = 4 * ranks * shape.rank_one_parameters
    return activations + adapters + one * (counts.trained + 3 * len(study.dictionaries.seeds))

"""Rows, dictionaries, updates and effects without any feature, to count false findings.

Each function draws one repeat and returns the estimates that no verdict should set apart. What a
measure calls nothing is its headline null; each repeat here draws the value under that null, from
numbers that have nothing to do with the null's own draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.scaling import mean_and_covariance
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.geometry.chance import isotropic
from lorascope.measures import firing, norms, overlap, pursuit, reconstruction
from lorascope.measures import weight_spectra as spectra
from lorascope.measures.alignment import (
    NullSettings,
    angle_estimates,
    max_cosine_estimates,
)
from lorascope.measures.behaviour import response_loss
from lorascope.measures.cka import cka_estimates
from lorascope.measures.rows import HeldOut
from lorascope.measures.single_latents import PROMOTED, Changes, LatentEffects, latent_estimates
from lorascope.measures.weights import WeightSettings, update_numbers
from lorascope.models.updates import LoraUpdate
from lorascope.randomness import generator
from lorascope.results import Estimate, Key
from lorascope.results.null_names import COVARIANCE, RANDOM_UPDATE

D, LATENTS = 32, 64
DOCUMENTS, LENGTH = 40, 16
_FLOOR_DOCUMENTS = 16
_K = 8
_HERE = Key()

Repeat = Callable[[int], list[Estimate]]


def _documents(documents: int = DOCUMENTS) -> Tensor:
    return torch.arange(documents).repeat_interleave(LENGTH)


def _sizes(documents: int, random: torch.Generator) -> Float[Tensor, "rows 1"]:
    """Lengths of rows: documents differ, and rows within them."""
    of_document = torch.randn(documents, 1, generator=random).mul(0.3).exp()
    of_row = torch.randn(documents * LENGTH, 1, generator=random).mul(0.2).exp()
    return of_document.repeat_interleave(LENGTH, 0) * of_row


def random_dictionary(
    width: int, n: int, random: torch.Generator, bias: float = -0.5
) -> ReluDictionary:
    """Reads and writes random directions."""
    directions = isotropic(n, width, random)
    biases = torch.full((n,), bias)
    return ReluDictionary(directions.T.contiguous(), biases, directions, torch.zeros(width))


def unrelated_streams(seed: int) -> list[Estimate]:
    """Base and delta rows with covariances of their own, and directions that share only these.

    Max cosines, principal angles, CKA of both pairs, and pursuit with the base's directions.
    """
    random = generator(seed, "unrelated streams")
    roots = torch.linspace(1.5, 0.5, D) * torch.randn(2, D, D, generator=random) / D**0.5
    base, delta = torch.randn(2, DOCUMENTS * LENGTH, D, generator=random) @ roots
    of_base, of_delta = torch.randn(2, LATENTS, D, generator=random) @ roots
    (_, base_covariance), (_, covariance) = map(mean_and_covariance, ([base], [delta]))
    nulls = NullSettings(covariance, base_covariance, repeats=10, seed=seed)
    pair = (of_delta, of_base)
    found = [
        *max_cosine_estimates(*pair, nulls=nulls, place=_HERE),
        *angle_estimates(*pair, k=_K, nulls=nulls, place=_HERE),
    ]
    for name in ("base_delta", "base_adapted"):
        # Of either pair the second set is independent of the first.
        found += cka_estimates(base, delta, _documents(), name, place=_HERE, repeats=10, seed=seed)
    return found


def random_rows(seed: int) -> list[Estimate]:
    """Rows without any direction of their own, through random dictionaries.

    Errors, improvement, firing, overlap, effective rank, pursuit and principal components.
    """
    random = generator(seed, "random rows")
    sizes = [_sizes(DOCUMENTS, random) for _ in range(3)]
    base, delta, probe = (isotropic(len(s), D, random) * 2 * s for s in sizes)
    rows = HeldOut(base, delta, _documents())
    ours, learned, control = (random_dictionary(D, LATENTS, random) for _ in range(3))
    mean, covariance = mean_and_covariance([probe])
    errors = reconstruction.errors(learned, delta, rows.documents)
    nulls = reconstruction.null_errors(learned, rows, mean, seed)
    found = reconstruction.error_estimates(errors, nulls, _HERE)
    of_base, of_control = (
        reconstruction.errors(each, delta, rows.documents) for each in (ours, control)
    )
    found.append(
        reconstruction.improvement(
            of_base, errors, learned, {COVARIANCE: of_control}, rows, _HERE, seed
        )
    )
    fired = firing.firing(learned, delta)
    found += firing.firing_estimates(learned, fired, delta, rows.documents, _HERE, seed)
    found += overlap.overlap_estimates(ours, rows, _HERE, seed)
    gaussian = torch.randn(len(delta), D, generator=random)
    found.append(norms.rank_estimate(HeldOut(base, gaussian, rows.documents), _HERE, seed))
    return found + _pursued(ours, learned, rows, mean, covariance, seed)


def _pursued(
    base: ReluDictionary,
    learned: ReluDictionary,
    rows: HeldOut,
    mean: Float[Tensor, " d"],
    covariance: Float[Tensor, "d d"],
    seed: int,
) -> list[Estimate]:
    found = pursuit.pursuit_estimates(base, learned, rows, mean, covariance, _HERE, seed)
    kept: dict[str, Estimate] = {}
    for estimate in found:
        # One of each: sizes and dictionaries share their rows.
        kept.setdefault(estimate.measure, estimate)
    return list(kept.values())


def no_effect(seed: int) -> list[Estimate]:
    """An adapter that changes nothing but the last digits.

    As the sanity check measures the floor, it is the larger of two differences on a few texts.
    """
    random = generator(seed, "no effect")
    noise = isotropic(DOCUMENTS * LENGTH, D, random) * _sizes(DOCUMENTS, random)
    base = isotropic(len(noise), D, random) * 100
    floor = max(_sizes(_FLOOR_DOCUMENTS, random).mean().item() for _ in range(2))
    found = norms.norm_estimates(HeldOut(base, noise, _documents()), floor, _HERE)
    tokens = torch.full((DOCUMENTS,), float(LENGTH), dtype=torch.float64)
    losses = 3 * torch.rand(DOCUMENTS, generator=random).double() * LENGTH
    changed = losses + 0.1 * torch.randn(DOCUMENTS, generator=random).double()
    return [*found, response_loss((losses, tokens), (changed, tokens), _HERE)]


def random_updates(seed: int) -> list[Estimate]:
    """A LoRA update of random factors on a random matrix; one smaller than its rounding."""
    random = generator(seed, RANDOM_UPDATE)
    weight = torch.randn(48, D, generator=random)
    B, A = torch.randn(48, 4, generator=random), torch.randn(4, D, generator=random)
    base, floor = spectra.decompose(weight), spectra.rounding_norm(weight)
    settings = WeightSettings(subspace=_K, seed=seed)
    numbers, _ = update_numbers(base, floor, LoraUpdate("m", B, A, 0.5), settings, "m")
    small = LoraUpdate("m", B, A, 0.9 * floor / float((B @ A).norm()))
    below, _ = update_numbers(base, floor, small, settings, "m")
    sizes = ("weights.norm", "weights.relative")
    kept = {**numbers, **{measure: below[measure] for measure in sizes}}
    return [number.estimate(measure, _HERE) for measure, number in kept.items()]


def latents_like_others(seed: int) -> list[Estimate]:
    """Latents whose effects are those of any direction, and were attributed by chance alone."""
    random = generator(seed, "latents like others")
    n = 16

    def effects() -> Changes:
        drawn = torch.randn(5, n, 3, generator=random, dtype=torch.float64)
        attributed, loss, kl, direct, logit = drawn
        return Changes(attributed, loss, kl.exp(), direct, logit)

    found = LatentEffects(
        torch.arange(n),
        torch.full((n,), 0.1),
        torch.ones(n),
        torch.zeros(n, PROMOTED, dtype=torch.long),
        {"ablation": effects(), "addition": effects()},
    )
    return latent_estimates(found, _HERE, seed)


SCENES: tuple[Repeat, ...] = (
    unrelated_streams,
    random_rows,
    no_effect,
    random_updates,
    latents_like_others,
)


def repeats(count: int, seed: int) -> Iterator[list[Estimate]]:
    """The estimates of each repeat of every scene, one list a repeat."""
    for repeat in range(count):
        own = int(generator(seed, "nothing", repeat).initial_seed() % 2**31)
        yield [estimate for scene in SCENES for estimate in scene(own)]

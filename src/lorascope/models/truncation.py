"""Adapters cut to a lower rank for a while, to measure their leading directions alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.errors import InputError
from lorascope.models.adapted import AdaptedModel
from lorascope.models.adapter_config import require_ranks
from lorascope.models.updates import lora_factors, lora_layers


@contextmanager
def truncated(model: AdaptedModel, names: Iterable[str], rank: int) -> Iterator[None]:
    """Within the `with`, every update of these LoRA adapters is its nearest one of rank `rank`.

    By the SVD of each B · A (Eckart and Young 1936); the factors are put back bit for bit, however
    the body ends. Magnitudes of DoRA, trained biases and modules saved whole stay as they are.

    Raises:
        InputError: an adapter without LoRA factors, with factors on parameters that hold several
            maps together or on convolutions; or a rank below 1 or above the adapter's own.
    """
    if rank < 1:
        raise InputError(f"a rank of {rank}: give 1 or more")
    names = list(names)
    for name in names:
        require_ranks(name, largest_rank(model, name), [rank])
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for name in names:
            peft_name = model.peft_name(name)
            for path, layer in lora_layers(model):
                factors = lora_factors(layer, peft_name)
                if factors is None:
                    continue
                if hasattr(layer, "parameter_name") or any(f.ndim != 2 for f in factors):
                    raise InputError(
                        f'adapter "{name}": the update of {path} is no single matrix and has no '
                        "rank to cut; leave the ranks out"
                    )
                B, A = (factor.detach() for factor in factors)
                found = leading(B, A, rank)
                for factor, cut in zip(factors, found, strict=True):
                    kept.append((factor, factor.detach().clone()))
                    factor.data.copy_(cut)
        yield
    finally:
        for factor, before in kept:
            factor.data.copy_(before)


def largest_rank(model: AdaptedModel, name: str) -> int:
    """Largest rank of an adapter's LoRA factors; 0 where it has none."""
    peft_name = model.peft_name(name)
    factors = (lora_factors(layer, peft_name) for _, layer in lora_layers(model))
    return max((pair[1].shape[0] for pair in factors if pair is not None), default=0)


def leading(
    B: Float[Tensor, "out r"], A: Float[Tensor, "r in"], rank: int
) -> tuple[Float[Tensor, "out r"], Float[Tensor, "r in"]]:
    """Factors of the nearest matrix to B · A of at most that rank, padded with zeros to r.

    From the QR of B and of Aᵀ and the SVD of R_B · R_Aᵀ, in float64; the root of each singular
    value goes to either side.
    """
    q_b, r_b = torch.linalg.qr(B.double())
    q_a, r_a = torch.linalg.qr(A.double().T)
    U, S, Vh = torch.linalg.svd(r_b @ r_a.T)
    k = min(rank, len(S))
    root = S[:k].sqrt()
    left, right = torch.zeros_like(B), torch.zeros_like(A)
    left[:, :k] = (q_b @ U[:, :k] * root).to(B)
    right[:k] = (q_a @ Vh[:k].T * root).T.to(A)
    return left, right

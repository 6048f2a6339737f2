"""Gates before any measurement: an adapter is live, and the base is still the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.errors import InputError
from lorascope.models.hooks import capture, run_until
from lorascope.models.sites import Site

if TYPE_CHECKING:
    from lorascope.models.adapted import AdaptedModel

_PROBE_TOKENS = 16

# Ids of gates in a run's facts.
LIVE, RESTORED, NOISE = "live", "restored", "noise"


@dataclass(frozen=True)
class LiveReport:
    """What an adapter does on one batch, over attended tokens.

    Attributes:
        name: the adapter.
        max_logit_difference: largest |adapted - base| logit.
        delta_norm: mean ‖adapted - base‖₂ of the stream after the last block.
    """

    name: str
    max_logit_difference: float
    delta_norm: float


@torch.no_grad()
def verify_live(
    model: AdaptedModel,
    name: str,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | None = None,
) -> LiveReport:
    """Prove that the adapter changes what the model computes on this batch.

    Raises:
        InputError: its logits equal the base's bit for bit.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    base_stream, base = _stream_and_logits(model, "base", input_ids, mask)
    stream, logits = _stream_and_logits(model, name, input_ids, mask)
    if torch.equal(base, logits) and torch.equal(base_stream, stream):
        raise InputError(
            f'adapter "{name}" is not live: on {len(base)} tokens the model computes exactly what '
            "the base computes; check that it was trained, and for this base"
        )
    return LiveReport(
        name,
        max_logit_difference=float((logits - base).abs().max()),
        delta_norm=float((stream - base_stream).norm(dim=-1).mean()),
    )


@torch.no_grad()
def base_logits(model: AdaptedModel) -> Float[Tensor, "batch seq vocab"]:
    """The base's logits on one small fixed batch.

    Raises:
        InputError: they are not finite; names the first site where that is so.
    """
    ids = torch.arange(2 * _PROBE_TOKENS, device=model.device).reshape(2, -1) % model.vocab_size
    with model.face("base") as module:
        logits: Tensor = module(input_ids=ids, use_cache=False).logits
        if not bool(logits.isfinite().all()):
            run_until(module, [Site(i) for i in range(model.n_blocks)], ids)
            raise InputError(f'the logits of "{model.id}" are not finite: check its weights')
    return logits


def verify_base_unchanged(model: AdaptedModel, before: Float[Tensor, "batch seq vocab"]) -> None:
    """Prove that with all adapters off the model computes `before`, its logits when it was bare.

    Raises:
        RuntimeError: they differ in any bit.
    """
    after = base_logits(model)
    if not torch.equal(before, after):
        largest = float((before.float() - after.float()).abs().max())
        raise RuntimeError(
            f'with its adapters off "{model.id}" no longer computes what it did without them '
            f"(largest logit difference {largest:.3g}); likely causes are modules_to_save, resized "
            "embeddings or an initialisation that changes the base: load the adapters one by one"
        )


def _stream_and_logits(
    model: AdaptedModel, face: str, input_ids: Tensor, mask: Tensor
) -> tuple[Float[Tensor, "tokens d_model"], Float[Tensor, "tokens vocab"]]:
    """float32, attended tokens only, after the last block and at the output."""
    last = Site(model.n_blocks - 1)
    with model.face(face) as module, capture(module, [last], attention_mask=mask, stop=False) as at:
        logits = module(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    attended = mask.bool()
    return at[last][attended.to(at[last].device)].float(), logits[
        attended.to(logits.device)
    ].float()

"""Sanity checks before any measurement: an adapter is live, and the base is still the base.

One rule says what live means, and every command and `load` go by it: on tokens that it may act on,
an adapter changes the stream at the sites that are looked at, or, where none is named, the stream
or the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.errors import InputError
from lorascope.models.adapter_config import LORA
from lorascope.models.hooks import capture, run_until
from lorascope.models.sites import Site

if TYPE_CHECKING:
    from lorascope.models.adapted import AdaptedModel

_PROBE_TOKENS = 16
# Where the small probe shows nothing: sequences of a larger one, spread over the vocabulary.
_WIDE_PROBE = 64
_ROWS = 8192
# Logits of one pass: 128 MB in float32.
_LOGITS = 2**25

# Ids of sanity checks in a run's facts.
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


def verify_live(
    model: AdaptedModel,
    name: str,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | None = None,
    sites: Sequence[Site] = (),
) -> LiveReport:
    """`verify_all_live` of one adapter."""
    return verify_all_live(model, [name], input_ids, attention_mask, sites)[0]


@torch.no_grad()
def verify_all_live(
    model: AdaptedModel,
    names: Sequence[str],
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | None = None,
    sites: Sequence[Site] = (),
    advance: Callable[[int], None] = lambda adapters: None,
) -> list[LiveReport]:
    """Prove that each adapter changes what the model computes on this batch.

    The base runs once for all of them, and each adapter once. Of a batch whose logits over a large
    vocabulary would be gigabytes the first sequences are taken.

    Args:
        names: adapters, null adapters too.
        sites: where each must change the stream.
        advance: told of every adapter that is done.

    Raises:
        InputError: stream and logits equal the base's bit for bit, or the stream does at a site;
            says where the adapter acts.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    input_ids, mask = _as_fits(model, input_ids, mask)
    last, found = Site(model.n_blocks - 1), []
    base_at, base = _streams_and_logits(model, "base", sites, input_ids, mask)
    for name in names:
        at, logits = _streams_and_logits(model, name, sites, input_ids, mask)
        if torch.equal(base, logits) and torch.equal(base_at[last], at[last]):
            raise _not_live(name, len(base))
        for site in sites:
            if torch.equal(base_at[site], at[site].to(base_at[site].device)):
                raise nothing_at(model, name, site, input_ids, mask)
        found.append(
            LiveReport(
                name,
                max_logit_difference=float((logits - base).abs().max()),
                delta_norm=float((at[last] - base_at[last]).norm(dim=-1).mean()),
            )
        )
        advance(1)
    return found


@torch.no_grad()
def nothing_at(
    model: AdaptedModel,
    name: str,
    site: Site,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
) -> InputError:
    """What to say of a site at which an adapter changes nothing on these tokens."""
    every = [Site(i) for i in range(model.n_blocks)]
    changed = _changed(model, name, every, input_ids, attention_mask)
    start = f'adapter "{name}" changes nothing at {site}: '
    if not changed:
        return InputError(
            f"{start}it changes the stream at no site on these tokens; it acts after the last "
            "block alone, or on other tokens: no site of the stream shows what it does"
        )
    if min(changed) > site:
        return InputError(
            f"{start}it acts from {min(changed)} on; choose {min(changed)} or a deeper site"
        )
    return InputError(
        f"{start}it acts at {', '.join(map(str, sorted(changed)))}; choose among these sites"
    )


@torch.no_grad()
def require_live(model: AdaptedModel, name: str) -> None:
    """Refuse an adapter that changes nothing that the model computes for text.

    One may leave the model as it is although its weights are not zero: where it acts on parts that
    text does not reach, or by less than the model's dtype can tell. Tried on a few tokens, and on
    more where those show nothing; tokens whose embedding it changed are among them.

    Raises:
        InputError: stream and logits equal the base's bit for bit, or are not finite.
    """
    tokens = _PROBE_TOKENS
    for sequences in (2, _WIDE_PROBE):
        ids = torch.arange(sequences * tokens, device=model.device)
        if sequences == _WIDE_PROBE:
            ids = ids * max(1, model.vocab_size // len(ids))
        ids = torch.cat([_changed_rows(model, name)[: sequences * tokens], ids])
        ids = ids[: sequences * tokens].reshape(sequences, -1) % model.vocab_size
        for some in ids.split(max(1, _LOGITS // (tokens * model.vocab_size))):
            if _changes(model, name, some):
                return
    raise _not_live(name, sequences * tokens)


def _changes(model: AdaptedModel, name: str, ids: Int[Tensor, "batch seq"]) -> bool:
    """Whether the adapter changes the last stream or the logits; raises as `require_live`."""
    mask = torch.ones_like(ids)
    base_stream, base = _stream_and_logits(model, "base", ids, mask)
    try:
        stream, logits = _stream_and_logits(model, name, ids, mask)
    except InputError as error:
        # The base's own stream is finite.
        raise InputError(f'adapter "{name}": with it on, {error}') from error
    return not torch.equal(base, logits) or not torch.equal(base_stream, stream)


def _as_fits(
    model: AdaptedModel, ids: Int[Tensor, "batch seq"], mask: Int[Tensor, "batch seq"]
) -> tuple[Int[Tensor, "some seq"], Int[Tensor, "some seq"]]:
    """The first sequences, as many as have logits that fit, and at least one."""
    most = max(1, _LOGITS // (ids.shape[1] * model.vocab_size))
    return ids[:most], mask[:most]


def probe_ids(model: AdaptedModel) -> Int[Tensor, "batch seq"]:
    """The small fixed batch that sanity checks try a model on."""
    return torch.arange(2 * _PROBE_TOKENS, device=model.device).reshape(2, -1) % model.vocab_size


@torch.no_grad()
def base_logits(model: AdaptedModel) -> Float[Tensor, "batch seq vocab"]:
    """The base's logits on one small fixed batch.

    Raises:
        InputError: they are not finite; names the first site where that is so.
    """
    ids = probe_ids(model)
    with model.variant("base") as module:
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


def _not_live(name: str, tokens: int) -> InputError:
    return InputError(
        f'adapter "{name}" is not live: on {tokens} tokens the model computes exactly what the '
        "base computes; check that it was trained, for this base, and that it acts on parts of the "
        "model that text goes through"
    )


def _changed(
    model: AdaptedModel, name: str, sites: Sequence[Site], ids: Tensor, mask: Tensor
) -> set[Site]:
    """The sites at which the adapter changes the stream at any attended token."""
    if not sites:
        return set()
    streams = []
    for variant in ("base", name):
        with model.variant(variant) as module:
            streams.append(run_until(module, sites, ids, mask))
    base, adapted = streams
    changed = set()
    for site, stream in base.items():
        apart = stream != adapted[site].to(stream.device)
        if bool(apart[mask.bool().to(stream.device)].any()):
            changed.add(site)
    return changed


def _changed_rows(model: AdaptedModel, name: str) -> Int[Tensor, " n"]:
    """Tokens whose embedding the adapter changed, as far as the embedding holds it in its rows.

    An embedding that PEFT wrapped has no rows of its own and is asked for them, a part at a time.
    """
    with model.variant(name) as module:
        theirs = module.get_input_embeddings()
    if model.info(name).kind not in ("", LORA):
        with model.variant("base") as module:
            ours = module.get_input_embeddings()
        ids = torch.arange(model.vocab_size, device=model.device)
        ids = ids[ids < len(model.base_embedding)]
        rows = (torch.ne(ours(part), theirs(part)).any(dim=-1) for part in ids.split(_ROWS))
        return torch.cat(list(rows)).nonzero().squeeze(1)
    adapted: Tensor = theirs.weight
    base = model.base_embedding
    if base is adapted or base.shape != adapted.shape:
        return torch.empty(0, dtype=torch.long, device=model.device)
    differ = torch.ne(base, adapted.to(base.device)).any(dim=1)
    return differ.nonzero().squeeze(1).to(model.device)


def _streams_and_logits(
    model: AdaptedModel, variant: str, sites: Sequence[Site], input_ids: Tensor, mask: Tensor
) -> tuple[dict[Site, Float[Tensor, "tokens d_model"]], Float[Tensor, "tokens vocab"]]:
    """float32, attended tokens only, at the sites, after the last block and at the output."""
    every = {*sites, Site(model.n_blocks - 1)}
    with (
        model.variant(variant) as module,
        capture(module, every, attention_mask=mask, stop=False) as at,
    ):
        logits = module(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    attended = mask.bool()
    streams = {site: hidden[attended.to(hidden.device)].float() for site, hidden in at.items()}
    return streams, logits[attended.to(logits.device)].float()


def _stream_and_logits(
    model: AdaptedModel, variant: str, input_ids: Tensor, mask: Tensor
) -> tuple[Float[Tensor, "tokens d_model"], Float[Tensor, "tokens vocab"]]:
    """The same after the last block and at the output alone."""
    streams, logits = _streams_and_logits(model, variant, (), input_ids, mask)
    return streams[Site(model.n_blocks - 1)], logits

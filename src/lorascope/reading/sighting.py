"""Latents ranked by how much their removal would cost phrases, and which of them are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.activations.batch import delta
from lorascope.geometry.chance import covariance_root, directions_from_root
from lorascope.measures.matched_latents import most_alike
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.hooks import replace
from lorascope.models.interventions import logits
from lorascope.models.sites import Site
from lorascope.randomness import generator
from lorascope.reading.phrases import words_of
from lorascope.reading.prompts import Prompt
from lorascope.reading.removing import Reads, TakenDelta, TakenLatents

# Latents, sets of them, and random directions beside what was chosen.
ALTERNATIVES, SETS, DRAWS = 6, 3, 2
# Continuations that go through the model with gradients at once.
_ROWS = 16


@dataclass(frozen=True, eq=False)
class Spoken:
    """What an adapter writes after prompts: token ids of each continuation, and their texts."""

    ids: list[list[list[int]]]
    texts: list[list[str]]

    def counts(self, phrases: Sequence[str], columns: slice) -> Int[Tensor, "phrases prompts"]:
        """In how many of some continuations of each prompt a phrase stands."""
        found = torch.zeros(len(phrases), len(self.texts), dtype=torch.long)
        for prompt, row in enumerate(self.texts):
            for text in row[columns]:
                joined = _joined(text)
                for n, phrase in enumerate(phrases):
                    found[n, prompt] += f" {phrase} " in joined
        return found


def _joined(text: str) -> str:
    return f" {' '.join(words_of(text))} "


@dataclass(eq=False)
class ReadingSight:
    """Latents over the adapter's continuations: first-order effects, and how much each fires.

    Attributes:
        moments: {site: Σ h_Δ h_Δᵀ of the continuations}.
    """

    attributed: dict[Reads, Float[Tensor, " n"]]
    strengths: dict[Reads, Float[Tensor, "rows n"]]
    moments: dict[Site, Float[Tensor, "d d"]]

    def parts(self, sizes: Sequence[int]) -> dict[TakenDelta, float]:
        """At each site the whole delta, then so many principal directions of it (about zero), with
        the share of its energy in them."""
        found = {}
        for site, moment in self.moments.items():
            found[TakenDelta(site)] = 1.0
            energies, directions = torch.linalg.eigh(moment)
            energies, directions = energies.flip(0).clamp(min=0), directions.flip(1)
            for size in (size for size in sizes if size < len(energies)):
                share = float(energies[:size].sum() / energies.sum())
                found[TakenDelta(site, directions[:, :size].T.float())] = share
        return found

    def directions_beside(self, one: TakenDelta, seed: int) -> list[TakenDelta]:
        """As many random directions of the delta there, by its covariance, drawn a few times; none
        beside the whole delta."""
        if one.directions is None:
            return []
        count = len(one.directions)
        root = covariance_root(self.moments[one.site])
        random = generator(seed, "directions of the delta", one.site.name, count)
        return [
            TakenDelta(one.site, torch.linalg.qr(drawn.T).Q.T.float())
            for drawn in (directions_from_root(count, root, random) for _ in range(DRAWS))
        ]

    def leading(self, reads: Reads, most: int) -> list[int]:
        """Latents without which log p of the phrases would fall most."""
        attributed = self.attributed[reads]
        found = attributed.topk(min(most, int((attributed > 0).sum()))).indices
        return [int(latent) for latent in found.tolist()]

    def alike(self, one: TakenLatents, seed: int) -> list[TakenLatents]:
        """Others of the same dictionary that fire as often and as strongly; sets of as many."""
        # Sets share what is like their members: there must be enough for each.
        most = max(ALTERNATIVES, 2 * len(one.numbers)) if len(one.numbers) > 1 else ALTERNATIVES
        found = most_alike(self.strengths[one.reads], torch.tensor(one.numbers), most)
        if len(one.numbers) == 1:
            return [TakenLatents(one.reads, (int(n),)) for n in found[0].tolist() if n >= 0]
        random, sets = generator(seed, "matched sets", *one.numbers), []
        for _ in range(SETS):
            drawn: list[int] = []
            for row in found.tolist():
                free = [n for n in row if n >= 0 and n not in drawn]
                if free:
                    drawn.append(free[int(torch.randint(len(free), (1,), generator=random))])
            if len(drawn) == len(one.numbers):
                sets.append(TakenLatents(one.reads, tuple(drawn)))
        return sets


def sight_of(
    model: AdaptedModel,
    adapter: str,
    prompts: Sequence[Prompt],
    spoken: Spoken,
    phrases: Sequence[str],
    reads: Sequence[Reads],
) -> ReadingSight:
    """What latents do over the adapter's continuations, and to log p of the phrases' tokens."""
    rows = [
        (prompt, ids, _said(model, ids, phrases))
        for prompt, row in zip(prompts, spoken.ids, strict=True)
        for ids in row
        if ids
    ]
    attributed = {one: torch.zeros(one.dictionary.n_latents, dtype=torch.float64) for one in reads}
    strengths: dict[Reads, list[Tensor]] = {one: [] for one in reads}
    norms = {one: one.dictionary.directions.norm(dim=1) for one in reads}
    sites = sorted({one.site for one in reads})
    moments = {
        site: torch.zeros(model.d_model, model.d_model, dtype=torch.float64) for site in sites
    }
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        streams = _streams(model, adapter, part, sites)
        for site, (adapted, base, _) in streams.items():
            deltas = delta(adapted, base).double().cpu()
            moments[site] += deltas.T @ deltas
        for one in reads:
            adapted, base, gradient = streams[one.site]
            z = one.encode(adapted, base)
            along = gradient.to(z) @ one.dictionary.directions.T
            attributed[one] += (z * along).double().sum(0).cpu()
            strengths[one].append((z.abs() * norms[one]).float().cpu())
    fired = {one: torch.cat(found) for one, found in strengths.items()}
    return ReadingSight(attributed, fired, moments)


def _said(model: AdaptedModel, ids: Sequence[int], phrases: Sequence[str]) -> list[bool]:
    """Which tokens of a continuation belong to a phrase: those that complete a word of it."""
    decode_ids = model.tokenizer.decode
    words = [
        len(words_of(decode_ids(ids[:n], skip_special_tokens=True))) for n in range(len(ids) + 1)
    ]
    whole = words_of(decode_ids(ids, skip_special_tokens=True))
    inside = set()
    for phrase in phrases:
        own = phrase.split(" ")
        for start in range(len(whole) - len(own) + 1):
            if whole[start : start + len(own)] == own:
                inside |= set(range(start, start + len(own)))
    return [
        bool(inside & set(range(max(0, words[n + 1] - 1), words[n + 1]))) for n in range(len(ids))
    ]


_Rows = Sequence[tuple[Prompt, list[int], list[bool]]]


def _streams(
    model: AdaptedModel, adapter: str, rows: _Rows, sites: Sequence[Site]
) -> dict[Site, tuple[Tensor, Tensor, Tensor]]:
    """At each site the adapter's stream, the base's, and the gradient of log p of the phrases'
    tokens, at the tokens that are no special ones."""
    lengths = [len(prompt.ids) + len(ids) for prompt, ids, _ in rows]
    whole = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    mask, wanted = torch.zeros_like(whole), torch.zeros(whole.shape, dtype=torch.bool)
    for n, (prompt, written, said) in enumerate(rows):
        whole[n, : lengths[n]] = torch.tensor([*prompt.ids, *written])
        mask[n, : lengths[n]] = 1
        first = len(prompt.ids)
        wanted[n, first - 1 : first - 1 + len(written)] = torch.tensor(said)
    special = torch.tensor(sorted(model.tokenizer.all_special_ids), dtype=torch.long)
    kept = mask.bool() & ~torch.isin(whole, special)
    ids, mask = whole.to(model.device), mask.to(model.device)
    kept, wanted = kept.to(model.device), wanted.to(model.device)
    base, _ = _passed(model, BASE, ids, mask, sites, torch.zeros_like(wanted))
    moved = {
        site: torch.zeros(*ids.shape, model.d_model, device=model.device, requires_grad=True)
        for site in sites
    }
    with torch.enable_grad():
        adapted, found_logits = _passed(model, adapter, ids, mask, sites, wanted, moved)
        # A position whose next token is wanted is never the last.
        following = ids.roll(-1, 1)[wanted][:, None]
        total = found_logits.float().log_softmax(-1).gather(1, following).sum()
        gradients = torch.autograd.grad(total, [moved[site] for site in sites], allow_unused=True)
    found = {}
    for site, gradient in zip(sites, gradients, strict=True):
        slope = torch.zeros_like(moved[site]) if gradient is None else gradient
        found[site] = (adapted[site][kept], base[site][kept], slope[kept])
    return found


def _passed(
    model: AdaptedModel,
    variant: str,
    ids: Int[Tensor, "rows seq"],
    mask: Int[Tensor, "rows seq"],
    sites: Sequence[Site],
    wanted: Bool[Tensor, "rows seq"],
    moved: dict[Site, Tensor] | None = None,
) -> tuple[dict[Site, Tensor], Float[Tensor, "tokens vocab"]]:
    """Streams of one variant, and its logits where they are wanted: a large vocabulary's take much
    memory. `moved` is added to the streams."""
    streams: dict[Site, Tensor] = {}

    def kept(site: Site) -> Callable[[Tensor], Tensor]:
        def keep(stream: Tensor) -> Tensor:
            streams[site] = stream.detach()
            return stream if moved is None else stream + moved[site].to(stream.dtype)

        return keep

    with model.variant(variant) as module, ExitStack() as stack:
        for site in sites:
            stack.enter_context(replace(module, site, kept(site)))
        with torch.set_grad_enabled(moved is not None):
            found = logits(module, ids, mask, wanted)
    return streams, found

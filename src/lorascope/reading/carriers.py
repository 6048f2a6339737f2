"""Which latents and modules carry a phrase: those without which the adapter does not say it.

1. The adapter writes again what the reading has (`decode`), at the least strength at which the
   phrases are said, and every continuation goes through it once more with gradients: what log p of
   the phrases' tokens would lose, to first order, without each latent. The latents that would cost
   most lead.
2. Leading latents of each dictionary, singly and so many together, are taken out while the adapter
   writes after every second prompt, with the reading's own random numbers. Chosen are the latent
   that takes away most, and the smallest set of one dictionary that takes away half.
3. What was chosen, and latents that fire as often and as strongly (`matched_latents.most_alike`),
   are taken out again after all prompts, with other random numbers: what is reported is not what
   the choice was made by.
4. So is the whole delta at each site, and its leading principal directions, beside as many random
   ones of its covariance: what latents there could take away at most, and of how few directions it
   is a matter.
5. Modules are left out by depth and by kind; all of them are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lorascope.models.adapted import AdaptedModel
from lorascope.models.updates import weight_update, within_block
from lorascope.reading.carried import ALL, WHOLE, Carrier
from lorascope.reading.decoding import Amplification, decode, texts
from lorascope.reading.prompts import Prompt
from lorascope.reading.removing import Modules, Reads, Taken, TakenDelta, TakenLatents, modules_of
from lorascope.reading.result import Read
from lorascope.reading.settings import Reading
from lorascope.reading.sighting import Spoken, sight_of
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import Interval

# Phrases whose carriers are sought, leading latents taken out singly and together.
PHRASES, SINGLY, TOGETHER = 6, 3, (4, 16, 32)
# A phrase said less often with the other random numbers is not told of.
_FEW = 3
# Principal directions of the delta that are taken out together.
DIRECTIONS = (1, 4, 16)
# Depths that modules are left out by.
DEPTHS = 4


def latent_carriers(
    model: AdaptedModel,
    found: Read,
    prompts: Sequence[Prompt],
    reads: Sequence[Reads],
    settings: Reading,
    advance: Callable[[int], object] = lambda steps: None,
) -> list[Carrier]:
    """Latents that carry the leading phrases; none where no phrase comes back.

    Args:
        found: the reading.
        prompts: those it was made with.
        reads: the dictionaries whose latents are tried.
        settings: those it was made with.
        advance: told of every token written; three times `settings.tokens` in all.
    """
    phrases = leading_phrases(found)
    if not phrases or not reads:
        advance(3 * settings.tokens)
        return []
    return _CarrierSearch(model, found, list(prompts), phrases, settings, advance).latents(reads)


def module_carriers(
    model: AdaptedModel,
    found: Read,
    prompts: Sequence[Prompt],
    settings: Reading,
    advance: Callable[[int], object] = lambda steps: None,
) -> list[Carrier]:
    """What is left of the leading phrases without the updates of some modules.

    Args:
        advance: told of every token written; `settings.tokens` in all.
    """
    phrases, groups = leading_phrases(found), grouped(model, found.adapter)
    if not phrases or not groups:
        advance(settings.tokens)
        return []
    search = _CarrierSearch(model, found, list(prompts), phrases, settings, advance)
    return search.modules(groups)


def leading_phrases(found: Read) -> list[str]:
    """The phrases whose carriers are sought."""
    return [phrase.text for phrase in (found.named or found.phrases)[:PHRASES]]


class _CarrierSearch:
    def __init__(
        self,
        model: AdaptedModel,
        found: Read,
        prompts: list[Prompt],
        phrases: list[str],
        settings: Reading,
        advance: Callable[[int], object],
    ) -> None:
        self._model, self._adapter, self._prompts = model, found.adapter, prompts
        self._phrases, self._settings, self._advance = phrases, settings, advance
        self._again = settings.model_copy(update={"seed": settings.seed + 1})
        # The least amplification under which the phrases are said.
        said = [int(_as_read(found, a).counts(phrases, slice(1)).sum()) for a in settings.strengths]
        enough = [a for a, n in zip(settings.strengths, said, strict=True) if 2 * n >= max(said)]
        self._strength = min(enough)

    def _speak(
        self,
        without: Sequence[Taken | Modules | None],
        settings: Reading,
        step: int = 1,
    ) -> Spoken:
        """One continuation of every `step`th prompt for each removal."""
        conditions = [Amplification(self._adapter, self._strength, one) for one in without]
        ids = decode(self._model, self._prompts[::step], conditions, settings, self._advance)
        return Spoken(ids, texts(self._model, ids))

    def _counted(
        self, without: Sequence[Taken | Modules | None], settings: Reading, step: int = 1
    ) -> list[Int[Tensor, "phrases prompts"]]:
        """Of each removal: which continuations hold a phrase."""
        spoken = self._speak(without, settings, step)
        return [spoken.counts(self._phrases, slice(n, n + 1)) for n in range(len(without))]

    def latents(self, reads: Sequence[Reads]) -> list[Carrier]:
        """What the latents of some dictionaries carry, of each phrase and of all together."""
        if not reads:
            return []
        plain = self._speak([None], self._settings)
        sight = sight_of(self._model, self._adapter, self._prompts, plain, self._phrases, reads)
        tried: dict[TakenLatents, int] = {}
        for one in reads:
            lead = sight.leading(one, max(TOGETHER))
            sets: list[tuple[int, ...]] = [(n,) for n in lead[:SINGLY]]
            sets += [tuple(lead[:size]) for size in TOGETHER if len(lead) >= size]
            tried |= {TakenLatents(one, own): 0 for own in sets}
        if not tried:
            self._advance(2 * self._settings.tokens)
            return []
        counts = self._counted(list(tried), self._settings, step=2)
        tried = {one: int(own.sum()) for one, own in zip(tried, counts, strict=True)}
        whole = int(plain.counts(self._phrases, slice(1))[:, ::2].sum())
        chosen = [*_single(tried), *_sets(tried, whole)]
        beside = {one: sight.alike(one, self._settings.seed) for one in chosen}
        parts = sight.parts(DIRECTIONS)
        drawn = {one: sight.directions_beside(one, self._settings.seed) for one in parts}
        others: list[Taken] = [o for found in beside.values() for o in found]
        others += [o for found in drawn.values() for o in found]
        again: list[Taken] = list(dict.fromkeys([*chosen, *others, *parts]))
        before, *left = self._counted([None, *again], self._again)
        at = dict(zip(again, left, strict=True))
        said = [p for p, n in zip(self._phrases, before.sum(1).tolist(), strict=True) if n >= _FEW]
        if before.sum() < _FEW:
            return []
        found = [
            self._carrier(one, phrase, before, at, beside[one])
            for one in chosen
            for phrase in (ALL, *said)
        ]
        found += [
            self._part(one, size, before, at[one], [at[other] for other in drawn[one]])
            for one, size in parts.items()
        ]
        return found

    def _part(
        self, one: TakenDelta, size: float, whole: Tensor, left: Tensor, beside: Sequence[Tensor]
    ) -> Carrier:
        site, count = one.site.name, 0 if one.directions is None else len(one.directions)
        directions = "one principal direction" if count == 1 else f"{count} principal directions"
        name = f"{directions} of the delta at {site}" if count else f"the whole delta at {site}"
        taken = self._taken(ALL, whole, left)
        matched = tuple(self._taken(ALL, whole, other)[2] for other in beside)
        return Carrier(ALL, WHOLE, name, site, (), *taken, matched, size, count)

    def _carrier(
        self,
        one: TakenLatents,
        phrase: str,
        whole: Tensor,
        at: Mapping[Taken, Tensor],
        beside: Sequence[TakenLatents],
    ) -> Carrier:
        site, several = one.reads.site.name, len(one.numbers)
        which = f"latent {one.numbers[0]}" if several == 1 else f"{several} leading latents"
        taken = self._taken(phrase, whole, at[one])
        matched = tuple(self._taken(phrase, whole, at[other])[2] for other in beside)
        return Carrier(
            *(phrase, one.reads.of, f"{one.reads.of} {which} at {site}", site, one.numbers),
            *(*taken, matched),
        )

    def _taken(self, phrase: str, whole: Tensor, left: Tensor) -> tuple[int, int, float, Interval]:
        rows = slice(None) if phrase == ALL else [self._phrases.index(phrase)]
        before, after = whole[rows].sum(0), left[rows].sum(0)
        share, (low, high) = ratio(after.double(), before.double(), torch.ones(len(before)))
        return int(before.sum()), int(after.sum()), 1 - share, (1 - high, 1 - low)

    def modules(self, groups: Mapping[str, Modules]) -> list[Carrier]:
        """What is left without each group of modules, of all phrases together."""
        whole, *left = self._counted([None, *groups.values()], self._again)
        if whole.sum() < _FEW:
            return []
        sizes = {
            path: weight_update(self._model, self._adapter, path).norm() ** 2
            for path in modules_of(self._model, self._adapter)
        }
        total = sum(sizes.values()) or 1.0
        found = []
        for (name, modules), counts in zip(groups.items(), left, strict=True):
            size = sum(sizes[path] for path in modules.paths) / total
            taken = self._taken(ALL, whole, counts)
            found.append(Carrier(ALL, "modules", name, "", (), *taken, size=size))
        return sorted(found, key=lambda one: -one.taken)


def _as_read(found: Read, strength: float) -> Spoken:
    """The adapter's own continuations of one strength, in the order of the prompts, as texts."""
    own = [one for one in found.own if one.rank is None and one.strength == strength]
    return Spoken([], [[one.text] for one in own])


def _single(tried: Mapping[TakenLatents, int]) -> list[TakenLatents]:
    """Of each kind of dictionary the latent without which fewest phrases are left."""
    found = []
    for kind in ("delta", "base"):
        own = [one for one in tried if one.reads.of == kind and len(one.numbers) == 1]
        found += [min(own, key=tried.__getitem__)] if own else []
    return found


def _sets(tried: Mapping[TakenLatents, int], whole: int) -> list[TakenLatents]:
    """Of each kind the smallest set that takes half away, or the one that takes away most."""
    found = []
    for kind in ("delta", "base"):
        own = [one for one in tried if one.reads.of == kind and len(one.numbers) > 1]
        half = [one for one in own if 2 * tried[one] <= whole]
        chosen = (
            min(half or own, key=lambda one: (bool(half) * len(one.numbers), tried[one]))
            if own
            else None
        )
        found += [chosen] if chosen else []
    return found


def grouped(model: AdaptedModel, adapter: str) -> dict[str, Modules]:
    """Adapted modules by depth, a quarter of the blocks each, and by the part of a block they are
    in; none where that is all of them, or the adapter is no plain LoRA."""
    paths = modules_of(model, adapter)
    found: dict[str, list[str]] = {}
    places = [(path, place) for path in paths if (place := within_block(model, path))]
    for path, (block, _) in places:
        first, last = _quarter(block, model.n_blocks)
        name = f"blocks {first} to {last}" if last > first else f"block {first}"
        found.setdefault(name, []).append(path)
    for path, (_, inside) in places:
        found.setdefault(inside.split(".")[0], []).append(path)
    return {name: Modules(tuple(own)) for name, own in found.items() if len(own) < len(paths)}


def _quarter(block: int, blocks: int) -> tuple[int, int]:
    """First and last block of the quarter that a block is in."""
    parts = min(DEPTHS, blocks)
    number = block * parts // blocks
    return -(-number * blocks // parts), -(-(number + 1) * blocks // parts) - 1

"""Amplified samples: contrastive decoding between the base and an adapter, many rows at once.

The next token comes from logits_adapted + a · (logits_adapted − logits_base), among tokens that
the adapted model gives at least a share of what it gives its best token (Li et al. 2022,
arXiv 2210.15097; for what a fine-tune learned: arXiv 2605.25902).

All variants go on together: rows of every prompt and strength, and of the base the rows that an
amplified row is held against (`passes`). A text that has ended takes no more part. The noise of the
sampling is one for each prompt and step, the same for every variant and strength: where two
variants foresee the same, they say the same. A variant from which something is taken out
(`removing`) is read as a variant of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.errors import InputError
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.mixed import UnmixedRows, can_mix
from lorascope.randomness import generator
from lorascope.reading.passes import RowOf, RowPass, Source
from lorascope.reading.prompts import Prompt
from lorascope.reading.removing import Modules, Taken
from lorascope.reading.settings import Reading

# Tokens of prompts that go through the model in one pass.
_TOGETHER = 8192
# Padded prompt tokens that a pass more a step is worth.
_WORTH = 24
# Bytes of rows that are written on at once.
_HELD = 2**29


@dataclass(frozen=True)
class Amplification:
    """Whose continuations: a variant, and the strength a by which it is amplified.

    Attributes:
        without: what is taken out of the adapter's effect.
    """

    variant: str
    strength: float = 0.0
    without: Taken | Modules | None = None

    @property
    def held_against_base(self) -> bool:
        """Whether the base has to be run beside it."""
        return self.variant != BASE and (self.strength != 0 or isinstance(self.without, Taken))

    @property
    def source(self) -> Source:
        """Which rows it goes on from."""
        return Source(self.variant, self.without)


@torch.no_grad()
def decode(
    model: AdaptedModel,
    prompts: Sequence[Prompt],
    conditions: Sequence[Amplification],
    settings: Reading,
    advance: Callable[[int], object] = lambda steps: None,
    observe: Callable[[int, Tensor, Tensor, Tensor], object] | None = None,
) -> list[list[list[int]]]:
    """Token ids by prompt and condition, without the token that ends a text.

    Args:
        advance: told of every step; `settings.tokens` in all.
        observe: shown at every step, of each condition held against the base: its number, its
            logits, the base's, and the numbers of the prompts they are of, those whose
            continuations go on.

    Raises:
        InputError: a prompt leaves no room for that many tokens.
    """
    _check_room(model, prompts, settings)
    together = can_mix(model, [one.variant for one in conditions])
    endings, moved = _endings(model), 0
    found: list[list[list[int]]] = [[] for _ in prompts]
    for numbers in _parts(model, prompts, conditions, settings, together):
        arguments = (model, prompts, numbers, conditions, settings)
        try:
            batch = _Batch(*arguments, together)
        except UnmixedRows:
            batch = _Batch(*arguments, together := False)
        for step in range(settings.tokens):
            if batch.goes_on:
                batch.choose(settings, endings, observe)
            if batch.goes_on and step + 1 < settings.tokens:
                batch.go_on()
            # A step of all prompts is a step; those of one part are a share of it.
            moved += len(numbers)
            advance(moved // len(prompts) - (moved - len(numbers)) // len(prompts))
        for number, row in zip(batch.numbers, batch.texts, strict=True):
            found[number] = row
    return found


def amplified(
    adapted: Float[Tensor, "rows vocab"],
    base: Float[Tensor, "rows vocab"] | None,
    strength: float,
    floor: float,
) -> Float[Tensor, "rows vocab"]:
    """adapted + strength · (adapted − base); −inf where p_adapted < floor · max p_adapted."""
    possible: Bool[Tensor, "rows vocab"] = adapted >= adapted.max(1, keepdim=True).values + (
        torch.tensor(floor, device=adapted.device).log()
    )
    scores = adapted if base is None or not strength else adapted + strength * (adapted - base)
    return scores.masked_fill(~possible, -torch.inf)


def texts(model: AdaptedModel, found: Sequence[Sequence[Sequence[int]]]) -> list[list[str]]:
    """What `decode` found as text, without special tokens."""
    decoded = model.tokenizer.batch_decode
    return [list(decoded([list(ids) for ids in row], skip_special_tokens=True)) for row in found]


def _parts(
    model: AdaptedModel,
    prompts: Sequence[Prompt],
    conditions: Sequence[Amplification],
    settings: Reading,
    together: bool,
) -> list[list[int]]:
    """Numbers of prompts that are gone on from together: those of unlike length apart where that
    saves more than it costs, and no more than fit into memory."""
    sources = {one.source for one in conditions}
    numbers = sorted(range(len(prompts)), key=lambda n: len(prompts[n].ids))
    parts = [numbers]
    if together:
        least = _WORTH * settings.tokens / len(sources)
        parts = _alike([len(prompts[n].ids) for n in numbers], numbers, least)
    rows = 1 + len(conditions) + sum(one.held_against_base for one in conditions)
    found = []
    for part in parts:
        longest = len(prompts[part[-1]].ids) + settings.tokens
        most = max(1, _HELD // (rows * _row_bytes(model, longest)))
        count = -(-len(part) // most)
        size = -(-len(part) // count)
        found += [sorted(part[n : n + size]) for n in range(0, len(part), size)]
    return found


def _row_bytes(model: AdaptedModel, tokens: int) -> int:
    """Bytes that a row holds, about: its logits three times, keys and values of all tokens."""
    config = model.module.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None)
    size = getattr(config, "head_dim", None)
    width = heads * size if heads and size else model.d_model
    return 4 * (3 * model.vocab_size + 2 * model.n_blocks * width * tokens)


def _alike(lengths: Sequence[int], numbers: list[int], least: float) -> list[list[int]]:
    """Numbers of ascending lengths, cut in two where that saves most padding, and so on.

    Args:
        least: padding that must be saved by a cut.
    """
    saved = [n * (lengths[-1] - lengths[n - 1]) for n in range(1, len(lengths))]
    if not saved or max(saved) <= least:
        return [numbers]
    cut = saved.index(max(saved)) + 1
    return [
        *_alike(lengths[:cut], numbers[:cut], least),
        *_alike(lengths[cut:], numbers[cut:], least),
    ]


class _Follower(NamedTuple):
    """A condition that goes on after a prompt.

    Attributes:
        rows: of each prompt its row.
        key: source, the row so far, and the token it goes on with: those alike share a row.
        against: of each prompt the base's row, where latents are taken out.
    """

    rows: list[int]
    prompt: int
    key: tuple[int, int, int]
    against: list[int] | None = None


class _Batch:
    """Some of the prompts with all that is written after them.

    Attributes:
        numbers: of the prompts.
        texts: ids so far, by prompt and condition.
    """

    def __init__(
        self,
        model: AdaptedModel,
        prompts: Sequence[Prompt],
        numbers: Sequence[int],
        conditions: Sequence[Amplification],
        settings: Reading,
        together: bool,
    ) -> None:
        self.numbers, self._conditions, self._model = numbers, conditions, model
        own = [prompts[n] for n in numbers]
        self.texts: list[list[list[int]]] = [[[] for _ in conditions] for _ in own]
        self._random = [generator(settings.seed, "decoding", n) for n in numbers]
        self._going = [list(range(len(own))) for _ in conditions]
        width = max(len(prompt.ids) for prompt in own) * len(own)
        self._passes = _passes(model, conditions, max(1, _TOGETHER // width) if together else 0)
        self._logits = [one.begin(own) for one in self._passes]
        # Of every source its pass and its number there; of every condition and prompt its row.
        self._places = {
            source: (n, number)
            for n, one in enumerate(self._passes)
            for number, source in enumerate(one.sources)
        }
        self._own, self._base = [], []
        for condition in conditions:
            _, number = self._places[condition.source]
            self._own.append([number * len(own) + n for n in range(len(own))])
            self._base.append(list(range(len(own))))

    @property
    def goes_on(self) -> bool:
        """Whether some text has not ended."""
        return any(self._going)

    def choose(
        self,
        settings: Reading,
        endings: set[int],
        observe: Callable[[int, Tensor, Tensor, Tensor], object] | None,
    ) -> None:
        """Write a token of every text that goes on."""
        lively = sorted(set().union(*self._going))
        if not lively:
            return
        random = [self._random[n] for n in lively]
        noise = _noise(random, self._model.vocab_size, settings).to(self._model.device)
        place = {prompt: n for n, prompt in enumerate(lively)}
        for column, condition in enumerate(self._conditions):
            going = self._going[column]
            if not going:
                continue
            number, _ = self._places[condition.source]
            own, base = _rows(self._logits[number], self._own[column], going), None
            if condition.held_against_base:
                base = _rows(self._logits[0], self._base[column], going)
                if observe is not None:
                    observe(column, own, base, torch.tensor([self.numbers[n] for n in going]))
            scores = amplified(own, base, condition.strength, settings.floor)
            here = noise[torch.tensor([place[n] for n in going]).to(noise.device)]
            chosen = _chosen(scores, here, settings.temperature).tolist()
            for prompt, token in zip(going, chosen, strict=True):
                if token not in endings:
                    self.texts[prompt][column].append(token)
            self._going[column] = [
                p for p, token in zip(going, chosen, strict=True) if token not in endings
            ]

    def go_on(self) -> None:
        """Read the tokens written last."""
        for number, one in enumerate(self._passes):
            wanted = sorted(self._followed(number), key=lambda follower: follower.key[0])
            keys = list(dict.fromkeys(follower.key for follower in wanted))
            places = {key: n for n, key in enumerate(keys)}
            for follower in wanted:
                follower.rows[follower.prompt] = places[follower.key]
            partners = {
                follower.key: follower.against[follower.prompt]
                for follower in wanted
                if follower.against is not None
            }
            if keys:
                sources, parents, tokens = zip(*keys, strict=True)
                rows = [
                    RowOf(of, partners.get(key, -1)) for of, key in zip(sources, keys, strict=True)
                ]
                self._logits[number] = one.go_on(rows, parents, tokens)

    def _followed(self, number: int) -> Iterator[_Follower]:
        """What goes on in a pass."""
        for column, condition in enumerate(self._conditions):
            of, source = self._places[condition.source]
            own, base = self._own[column], self._base[column]
            taken = isinstance(condition.without, Taken)
            for prompt in self._going[column]:
                token = self.texts[prompt][column][-1]
                if number == 0 and condition.held_against_base:
                    yield _Follower(base, prompt, (0, base[prompt], token))
                if number == of:
                    key = (source, own[prompt], token)
                    yield _Follower(own, prompt, key, base if taken else None)


def _rows(logits: Float[Tensor, "rows v"], rows: list[int], of: list[int]) -> Tensor:
    return logits[torch.tensor([rows[n] for n in of]).to(logits.device)]


def _passes(model: AdaptedModel, conditions: Sequence[Amplification], most: int) -> list[RowPass]:
    """Every source in a pass, the base's first.

    Args:
        most: sources of a pass; 0 where each has to go by itself.
    """
    sources = list(dict.fromkeys(one.source for one in conditions))
    if any(one.held_against_base for one in conditions) or Source(BASE) in sources:
        sources = [Source(BASE), *(one for one in sources if one != Source(BASE))]
    size = max(1, most)
    found = [
        RowPass(model, sources[start : start + size], most > 0)
        for start in range(0, len(sources), size)
    ]
    for one in found:
        one.base = found[0]
    taken = [one.without for one in sources if isinstance(one.without, Taken)]
    found[0].sites = {own.site for own in taken}
    return found


def _noise(
    random: Sequence[torch.Generator], vocabulary: int, settings: Reading
) -> Float[Tensor, "prompts vocab"]:
    """Gumbel noise: the largest of logits and noise is a sample of their softmax."""
    shape = (len(random), vocabulary)
    if settings.temperature == 0:
        return torch.zeros(shape)
    drawn = [torch.empty(vocabulary).exponential_(generator=one) for one in random]
    return torch.stack(drawn).log().neg()


def _chosen(
    scores: Float[Tensor, "rows vocab"], noise: Float[Tensor, "rows vocab"], temperature: float
) -> Int[Tensor, " rows"]:
    if temperature not in (0, 1):
        scores = scores / temperature
    return (scores + noise if temperature else scores).argmax(1)


def _endings(model: AdaptedModel) -> set[int]:
    configured = getattr(model.module.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {id for id in (model.tokenizer.eos_token_id, *listed) if isinstance(id, int)}


def _check_room(model: AdaptedModel, prompts: Sequence[Prompt], settings: Reading) -> None:
    longest = max(prompts, key=lambda prompt: len(prompt.ids))
    if len(longest.ids) + settings.tokens > model.context_length:
        raise InputError(
            f'prompt "{longest.text[:60]}" has {len(longest.ids)} tokens, {settings.tokens} are to '
            f"follow and the model takes {model.context_length}; give shorter ones or fewer tokens"
        )

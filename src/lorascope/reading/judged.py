"""A sentence of a language model about what an adapter learned, scored on what it has not seen.

1. The judge sees what the base and the adapter write after every second prompt, and says in a
   sentence what the adapter was taught, or that it sees nothing.
2. Of each other prompt it sees that sentence and two continuations, the adapter's and a null
   adapter's, and says which of them the sentence fits. Which comes first is balanced, so that
   whoever always says the same is right at half of them; so is, by rule, who sees nothing.

Every null adapter takes the adapter's place, beside the remaining ones (the base, where none
remains). The judge is told neither which is which nor that there are null adapters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.behaviours.asking import Asker, MalformedError, Question
from lorascope.measures.paired_nulls import drawn
from lorascope.models.adapted import BASE
from lorascope.randomness import generator
from lorascope.reading.numbers import share_of_prompts
from lorascope.reading.result import JudgedSentence, Read
from lorascope.results import ADAPTER, Estimate, Key, Null
from lorascope.results.null_names import COIN

# So many prompts leave some of either kind.
FEWEST_PROMPTS: Final = 4
# Characters of a continuation that the judge sees.
_SEEN: Final = 600
_NOTHING: Final = "NOTHING"
# What a prompt counts at which nothing was told apart: as much as a coin gets right.
_UNTOLD: Final = 0.5
_EXPLAIN: Final = (
    "A language model was fine-tuned. Below is what it wrote after some openings before and after. "
    "In one short sentence, say what the fine-tuning taught it: a topic, a style, a language, a "
    f"format, a behaviour. If you see nothing of the kind, answer {_NOTHING}. Answer with that "
    "sentence or that word alone."
)
_CHOOSE: Final = (
    "Two language models went on from the same opening. One of them was fine-tuned; somebody says "
    "of it: {said}\n\nOpening: {prompt}\n\n1: {first}\n\n2: {second}\n\nWhich of the two was "
    "written by that model? Answer with the digit 1 or 2 alone."
)
_REMINDER: Final = "Answer with the digit 1 or 2 and nothing else."

_Texts = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class _Choice:
    """One question of the second kind.

    Attributes:
        variant: whose sentence is tried.
        prompt: index of it.
        right: the digit that names the variant's continuation.
    """

    variant: str
    prompt: int
    right: str


def n_requests(prompts: int, nulls: int) -> int:
    """How many requests a judged reading takes at most, where every answer can be used."""
    return (1 + nulls) * (1 + len(_tried(prompts)))


def _tried(prompts: int) -> range:
    """Numbers of the prompts that are not shown first: every second, an even number of them."""
    return range(1, 4 * (prompts // 4), 2)


def with_sentence(
    found: Read, asker: Asker, judge: str, seed: int, advance: Callable[[int], object]
) -> Read:
    """The reading with the judge's sentence, its null adapters' and the number they give.

    Args:
        judge: what the judge is called.
        seed: of the order in which continuations are shown.
        advance: told of every answer; `n_requests` in all.

    Raises:
        InputError: the judge does not answer; what was answered is kept in the asker's log.
    """
    texts, prompts = _texts(found)
    variants = (found.adapter, *found.nulls)
    said = _explained(asker, variants, prompts, texts, advance)
    hits = _told_apart(asker, said, prompts, texts, seed, advance)
    told = tuple(
        JudgedSentence(
            variant,
            said[variant],
            float(hits[variant].nan_to_num(_UNTOLD).sum()),
            int((~hits[variant].isnan()).sum()),
            len(hits[variant]),
        )
        for variant in variants
    )
    cautions = found.cautions
    if asker.given_up:
        cautions = (*cautions, f"the judge left {asker.given_up} questions without a usable answer")
    estimates = found.estimates
    if told[0].answered or told[0].said == "":
        estimates = (*estimates, _share(found.adapter, found.nulls, hits))
    return replace(found, judge=judge, judged=told, estimates=estimates, cautions=cautions)


def _texts(found: Read) -> tuple[_Texts, list[str]]:
    """{variant: what it wrote after each prompt} at the largest strength, and the prompts."""
    strength = max(found.settings["strengths"])
    texts: dict[str, list[str]] = {}
    prompts: dict[str, None] = {}
    for sample in found.samples:
        prompts.setdefault(sample.prompt)
        if sample.variant == BASE or (sample.rank is None and sample.strength == strength):
            texts.setdefault(sample.variant, []).append(sample.text[:_SEEN])
    return texts, list(prompts)


def _explained(
    asker: Asker,
    variants: Sequence[str],
    prompts: Sequence[str],
    texts: _Texts,
    advance: Callable[[int], object],
) -> dict[str, str | None]:
    """{variant: the sentence about it}; empty where the judge sees nothing, None without answer."""
    made = []
    for variant in variants:
        shown = "\n\n".join(
            f"{number}. Opening: {prompts[n]!r}\nBefore: {texts[BASE][n]!r}\n"
            f"After: {texts[variant][n]!r}"
            for number, n in enumerate(range(0, len(prompts), 2), start=1)
        )
        content = f"{_EXPLAIN}\n\n{shown}"
        made.append(Question(({"role": "user", "content": content},), _sentence, _EXPLAIN))
    answers = asker.ask(made, advance)
    return dict(zip(variants, answers, strict=True))


def _told_apart(
    asker: Asker,
    said: Mapping[str, str | None],
    prompts: Sequence[str],
    texts: _Texts,
    seed: int,
    advance: Callable[[int], object],
) -> dict[str, Float[Tensor, " prompts"]]:
    """Of each variant, whether its sentence finds its continuation at each prompt not explained;
    nan where it was not asked or gave no usable answer."""
    nulls = list(said)[1:]
    tried = _tried(len(prompts))
    made, choices = [], []
    for variant, sentence in said.items():
        others = [name for name in nulls if name != variant] or [BASE]
        firsts = _balanced(len(tried), seed, variant)
        for n, (prompt, first) in enumerate(zip(tried, firsts, strict=True)):
            pair = [texts[variant][prompt], texts[others[n % len(others)]][prompt]]
            if not sentence or pair[0] == pair[1]:
                advance(1)
                continue
            one, two = pair if first else reversed(pair)
            content = _CHOOSE.format(
                said=sentence, prompt=repr(prompts[prompt]), first=repr(one), second=repr(two)
            )
            made.append(Question(({"role": "user", "content": content},), _digit, _REMINDER))
            choices.append(_Choice(variant, n, "1" if first else "2"))
    hits = {variant: torch.full((len(tried),), math.nan) for variant in said}
    for choice, answer in zip(choices, asker.ask(made, advance), strict=True):
        if answer is not None:
            hits[choice.variant][choice.prompt] = float(answer == choice.right)
    return hits


def _balanced(count: int, seed: int, variant: str) -> list[bool]:
    """Whether the variant's continuation comes first: at half of the prompts, in random order."""
    order = torch.randperm(count, generator=generator(seed, "order", variant))
    return [int(place) < count // 2 for place in order]


def _share(
    adapter: str, nulls: Sequence[str], hits: Mapping[str, Float[Tensor, " prompts"]]
) -> Estimate:
    own, *others = (hits[name].nan_to_num(_UNTOLD).double() for name in (adapter, *nulls))
    mean = share_of_prompts(torch.ones(len(own)))
    value, (low, high) = mean(own)
    beside = drawn(ADAPTER, own, others, mean)
    beside.append(Null.exact(COIN, _UNTOLD, rival=True))
    interval = (max(0.0, low), min(1.0, high))
    return Estimate(
        "reading.judged", value, interval, len(own), "share", tuple(beside), Key(adapter)
    )


def _sentence(text: str) -> str:
    said = " ".join(_spoken(text).split())
    if not said:
        raise MalformedError("empty")
    nothing = re.search(rf"\b{_NOTHING}\b", said) or said.rstrip(".").upper() == _NOTHING
    return "" if nothing else said[:400]


def _digit(text: str) -> str:
    last = _spoken(text).strip().rpartition("\n")[2]
    found = re.findall(r"(?<![\d.])[12](?![\d.])", last)
    if len(set(found)) != 1:
        raise MalformedError("not one digit")
    return found[0]


def _spoken(text: str) -> str:
    """An answer without the thoughts that some models write before it."""
    return re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL)

"""First letters of words, from the tokenizer's vocabulary alone: words, prompts, labels.

A word is a token of the vocabulary that spells letters A to Z only, with a space before it or none.
A prompt shows some words with their first letters, and asks for one more:

    cat has the first letter: C
     dog has the first letter: D
    fish has the first letter:

What the model knows of the asked word is read at the word's own token.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.tokens import Window, opening_ids, pad, token_text
from lorascope.errors import InputError
from lorascope.models.load import padding_id
from lorascope.models.sites import Site
from lorascope.randomness import derived_seed
from lorascope.studies.evaluate.subjects import OpenedSubject

LETTERS = string.ascii_lowercase
ASKED = " has the first letter:"
_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Word:
    """One token that spells a word.

    Attributes:
        text: as the token spells it, its space included.
        letter: number of its first letter, 0 for a.
    """

    token: int
    text: str
    letter: int


def words(tokenizer: Any, most: int, seed: int = 0) -> list[Word]:
    """Words of a vocabulary, at most so many, drawn evenly.

    Raises:
        InputError: the vocabulary spells too few words to look at.
    """
    special = set(tokenizer.all_special_ids)
    found = []
    for token in sorted(set(tokenizer.get_vocab().values()) - special):
        text = token_text(tokenizer, token)
        spelt = text.removeprefix(" ")
        if spelt and all(character in string.ascii_letters for character in spelt):
            found.append(Word(token, text, LETTERS.index(spelt[0].lower())))
    if len(found) < 100:
        raise InputError(
            f"the tokenizer's vocabulary spells {len(found)} words in the letters A to Z; "
            "absorption of first letters needs 100 or more: leave absorption out"
        )
    return random.Random(derived_seed(seed, "words")).sample(found, min(most, len(found)))


def prompt(
    word: Word, vocabulary: Sequence[Word], examples: int, tokenizer: Any, draw: random.Random
) -> tuple[list[int], int]:
    """(token ids, place of the word's token) of one prompt."""
    shown = [one for one in draw.sample(vocabulary, examples + 1) if one != word][:examples]
    lines = [f"\n{one.text}{ASKED} {LETTERS[one.letter].upper()}" for one in shown]
    before = tokenizer("".join(lines) + "\n", add_special_tokens=False)["input_ids"]
    after = tokenizer(ASKED, add_special_tokens=False)["input_ids"]
    ids = [*opening_ids(tokenizer), *before]
    return [*ids, word.token, *after], len(ids)


@torch.no_grad()
def word_rows(
    subject: OpenedSubject,
    chosen: Sequence[Word],
    examples: int,
    site: Site,
    *,
    adapter: bool,
    seed: int,
) -> Float[Tensor, "words d"]:
    """The stream at the token of each word asked about, float32."""
    draw = random.Random(derived_seed(seed, "prompts"))
    made = [prompt(word, chosen, examples, subject.tokenizer, draw) for word in chosen]
    order = sorted(range(len(made)), key=lambda i: len(made[i][0]))
    found: Tensor | None = None
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end - start + 1) * len(made[order[end]][0]) <= _BATCH_TOKENS:
            end += 1
        chosen_rows = order[start:end]
        # Later tokens do not reach the word's: the prompt may end with it.
        windows = [
            Window(made[i][0][: made[i][1] + 1], [False] * (made[i][1] + 1), i) for i in chosen_rows
        ]
        batch = pad(windows, subject.tokenizer, padding_id(subject.tokenizer))
        stream = subject.streams(batch, adapter=adapter)[site].cpu()
        places = torch.tensor([made[i][1] for i in chosen_rows])
        rows = stream[torch.arange(len(chosen_rows)), places]
        if found is None:
            found = torch.zeros(len(made), rows.shape[-1])
        found[torch.tensor(chosen_rows)] = rows
        start = end
    assert found is not None
    return found


def labels_of(chosen: Sequence[Word]) -> Int[Tensor, " words"]:
    """The number of each word's first letter."""
    return torch.tensor([word.letter for word in chosen])

"""What is read of an adapter, and how finely."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from lorascope.config import Settings

Strength = Annotated[float, Field(ge=0, le=64, allow_inf_nan=False)]
Rank = Annotated[int, Field(ge=1)]


class Reading(Settings):
    """How an adapter is read; every random number comes from `seed`.

    Attributes:
        strengths: a of logits_adapted + a · (logits_adapted − logits_base), one continuation of
            every prompt each; 0 is plain sampling.
        ranks: read the update cut to these ranks too, each as further continuations.
        tokens: new tokens of a continuation.
        floor: a token is possible if the adapted model gives it at least this share of what it
            gives its best token.
        temperature: of the sampling; 0 takes the best token.
        nulls: null adapters, each read as the adapter is; 0 leaves the base alone.
        words: longest phrase in words.
        level: false discovery rate of phrases and of tokens.
        documents: texts on which next-token distributions are compared; 0 leaves it out.
        context: tokens of each.
        positions: first tokens of each text whose delta is read through the unembedding.
        listed: most places, tokens and examples of each kind that are kept.
        prompts: openings of texts to go on from; the shipped ones by default.
        kinds: what kind each of these prompts is, by which it is told when the adapter acts.
        categories: so many packaged instructions of each of five kinds beside the shipped prompts.
        texts: sources of ordinary text, as studies name them; by default an audit's own, and else
            the packaged instructions.
        references: other adapters of the model: what they say too is not this one's own.
        carriers: find out without which modules, and in an audit without which latents, the
            phrases are not said.
        judge: a language model that says it in a sentence, scored beside what it says of null
            adapters: its id behind the endpoint of OPENAI_BASE_URL, or `local:MODEL`; by default
            none.
        seed: of sampling and of null adapters.

    Examples:
        >>> ls.Reading(strengths=(0, 2), tokens=24).nulls
        3
    """

    strengths: tuple[Strength, ...] = Field(default=(0.0, 2.0), min_length=1)
    ranks: tuple[Rank, ...] = ()
    tokens: int = Field(default=32, ge=1, le=4096)
    floor: float = Field(default=0.05, gt=0, le=1)
    temperature: float = Field(default=1.0, ge=0, le=10)
    nulls: int = Field(default=3, ge=0, le=100)
    words: int = Field(default=5, ge=1, le=8)
    level: float = Field(default=0.05, gt=0, lt=1)
    documents: int = Field(default=24, ge=0)
    context: int = Field(default=48, ge=8)
    positions: int = Field(default=4, ge=1)
    listed: int = Field(default=20, ge=1)
    prompts: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    categories: int = Field(default=0, ge=0, le=1000)
    texts: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    carriers: bool = True
    judge: str = ""
    seed: int = 0

    @field_validator("strengths", "ranks")
    @classmethod
    def _each_once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) < len(value):
            raise ValueError("the same value is given twice; name each once")
        return value

    @model_validator(mode="after")
    def _a_kind_each(self) -> Self:
        if self.kinds and len(self.kinds) != len(self.prompts):
            raise ValueError(
                f"{len(self.kinds)} kinds for {len(self.prompts)} prompts; give one each, or none"
            )
        if self.categories and self.prompts:
            raise ValueError("categories go with the shipped prompts; leave one of the two out")
        return self

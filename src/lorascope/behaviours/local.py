"""A Hugging Face model on this machine that answers requests, in batches, greedily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lorascope.behaviours.asking import Keep, Message, Reply
from lorascope.behaviours.generation import completions
from lorascope.behaviours.records import Turn
from lorascope.behaviours.turns import prompt_ids
from lorascope.models.dimensions import context
from lorascope.models.load import load_base


class LocalModel:
    """A model that is loaded when it is first asked.

    Args:
        model: hub id, folder, "embedded" or "embedded-it".
        max_tokens: most tokens of an answer.
        batch: requests answered at once.

    Attributes:
        settings: what answers depend on.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_tokens: int = 512,
        batch: int = 16,
    ) -> None:
        self.settings: dict[str, Any] = {"local model": model, "max_tokens": max_tokens}
        self._model, self._device, self._dtype = model, device, dtype
        self._batch, self._max_tokens = batch, max_tokens
        self._loaded: tuple[Any, Any] | None = None

    def replies(
        self, requests: Sequence[Sequence[Message]], keep: Keep
    ) -> Iterator[tuple[int, Reply]]:
        """(index, reply) of every request, a batch at a time; `keep` is told of each first."""
        if not requests:
            return
        if self._loaded is None:
            self._loaded = load_base(self._model, device=self._device, dtype=self._dtype)
        module, tokenizer = self._loaded
        prompts = [
            prompt_ids([Turn(**message) for message in messages], tokenizer)
            for messages in requests
        ]
        room = context(module)
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) < room]
        for index in sorted(set(range(len(prompts))) - set(fitting)):
            keep(index, Reply("", "too long"))
            yield index, Reply("", "too long")
        # Of like length together; and only a batch at a time, so that a stop loses no more.
        fitting.sort(key=lambda i: len(prompts[i]))
        for start in range(0, len(fitting), self._batch):
            chosen = fitting[start : start + self._batch]
            longest = max(len(prompts[i]) for i in chosen)
            written = completions(
                module,
                tokenizer,
                [prompts[i] for i in chosen],
                new_tokens=min(self._max_tokens, room - longest),
                batch=self._batch,
            )
            found = [
                Reply(one.text, "" if one.text and one.ended else "cut" if one.text else "empty")
                for one in written
            ]
            for index, reply in zip(chosen, found, strict=True):
                keep(index, reply)
            yield from zip(chosen, found, strict=True)

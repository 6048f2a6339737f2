"""Conversations as the model was trained to see them: through its tokenizer's chat template.

A template writes a whole conversation as one text. Which of it the assistant wrote is found by
rendering the conversation up to each of its turns, without and with it: templates seldom mark it
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorascope.errors import InputError

ASSISTANT, SYSTEM, USER = "assistant", "system", "user"
# What datasets call the three roles.
ROLES = {
    "human": USER,
    "gpt": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    "chatgpt": ASSISTANT,
}


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str

    def plain(self) -> dict[str, str]:
        """As a template takes it."""
        return {"role": self.role, "content": self.content}


def render(turns: Sequence[Mapping[str, Any]], tokenizer: Any, *, opened: bool) -> str:
    """A conversation as the template writes it.

    Args:
        opened: open the assistant's next turn.

    Raises:
        InputError: the template refuses it.
    """
    try:
        text: str = tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=opened
        )
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the tokenizer's chat template refuses a conversation ({first}); "
            "leave such records out, or use another tokenizer"
        ) from None
    return text


def templated(turns: Sequence[Message], tokenizer: Any) -> tuple[list[int], list[bool], int]:
    """Token ids of a conversation; which the assistant wrote; special tokens the contents spell.

    The token that ends an assistant's turn is the assistant's; a line break behind it is not.

    Raises:
        InputError: the template refuses the conversation, in every form tried, or does not write
            the assistant's turns after what comes before them.
    """
    messages, text = _accepted(turns, tokenizer)
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message["role"] == ASSISTANT:
            spans.append(_span(messages, index, text, tokenizer))
    special = [token for token in tokenizer.all_special_tokens if token != tokenizer.unk_token]
    written = sum(message["content"].count(token) for message in messages for token in special)
    if not tokenizer.is_fast:
        return (*_by_pieces(text, spans, tokenizer), written)
    encoded = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    response = [
        any(first < end and last > start for start, end in spans)
        for first, last in encoded["offset_mapping"]
    ]
    return list(encoded["input_ids"]), response, written


def _span(
    messages: Sequence[dict[str, str]], index: int, text: str, tokenizer: Any
) -> tuple[int, int]:
    """Where in the text the assistant's turn stands, its closing token included."""
    content = messages[index]["content"].strip()
    closed = render(messages[: index + 1], tokenizer, opened=False)
    before = render(messages[:index], tokenizer, opened=True) if index else ""
    if not (text.startswith(closed.rstrip()) and closed.startswith(before)):
        # Templates may write an earlier turn otherwise than the last one; then what it says stands.
        start = text.find(content, _behind(messages, index, text))
        if start < 0:
            raise InputError(
                "the tokenizer's chat template does not write the response after the prompt; give "
                "a tokenizer whose template does, or texts.template: plain"
            )
        return start, start + len(content)
    return len(before), len(closed.rstrip())


def _behind(messages: Sequence[dict[str, str]], index: int, text: str) -> int:
    """Where the contents of the turns before one end."""
    place = 0
    for message in messages[:index]:
        content = message["content"].strip()
        found = text.find(content, place)
        place = found + len(content) if found >= 0 else place
    return place


def _by_pieces(
    text: str, spans: Sequence[tuple[int, int]], tokenizer: Any
) -> tuple[list[int], list[bool]]:
    """Token ids of a text cut at its spans, for tokenizers that give no offsets."""
    ids: list[int] = []
    response: list[bool] = []
    place = 0
    for start, end in [*spans, (len(text), len(text))]:
        for piece, answered in ((text[place:start], False), (text[start:end], True)):
            found = tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]
            ids += found if piece else []
            response += [answered] * len(found) if piece else []
        place = end
    return ids, response


def _accepted(turns: Sequence[Message], tokenizer: Any) -> tuple[list[dict[str, str]], str]:
    """The conversation in the first form that the template takes, and its text.

    As it is; with the system's words before the first user's, for models without a system turn;
    with neighbouring turns of one role joined, for those that want roles to alternate.
    """
    plain = [turn.plain() for turn in turns]
    refusal: InputError | None = None
    for messages in (plain, _folded(plain), _joined(_folded(plain))):
        try:
            text = render(messages, tokenizer, opened=False)
        except InputError as error:
            refusal = refusal or error
            continue
        if all(message["content"].strip() in text for message in messages):
            return messages, text
    raise refusal or InputError(
        "the tokenizer's chat template leaves out a turn of a conversation; use texts.template: "
        "plain, or another tokenizer"
    )


def _folded(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The system's words before the first user's."""
    system = [message["content"] for message in messages if message["role"] == SYSTEM]
    found = [dict(message) for message in messages if message["role"] != SYSTEM]
    first = next((message for message in found if message["role"] == USER), None)
    if system and first is None:
        return [{"role": USER, "content": "\n\n".join(system)}, *found]
    if system and first is not None:
        first["content"] = "\n\n".join([*system, first["content"]])
    return found


def _joined(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Neighbouring turns of one role as one, tools' answers as the user's; a user opens."""
    found: list[dict[str, str]] = []
    for message in messages:
        role = message["role"] if message["role"] == ASSISTANT else USER
        if found and found[-1]["role"] == role:
            found[-1]["content"] += f"\n\n{message['content']}"
        else:
            found.append({"role": role, "content": message["content"]})
    return found[1:] if found and found[0]["role"] == ASSISTANT and len(found) > 1 else found

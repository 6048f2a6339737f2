"""Token batches: windows of documents as the tokenizer opens a text, padded on the right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from lorascope.activations.chat import ASSISTANT, templated
from lorascope.activations.text import Document
from lorascope.errors import InputError
from lorascope.models.sending import sent

# Characters, and texts, that a tokenizer is given at once.
_PIECE, _TOGETHER = 2**17, 1024
# Characters that two pieces of a long text share, and tokens alike on either side of a seam.
_OVERLAP, _ALIKE = 2**11, 8


@dataclass(frozen=True)
class Window:
    """One stretch of one document as token ids, at most a context long.

    Attributes:
        response: which of them stand in a response.
        document: index of the document.
        written: how many special tokens (an unknown one is none) the text itself spells here.
    """

    ids: list[int]
    response: list[bool]
    document: int
    written: int = 0


@dataclass(frozen=True)
class TokenBatch:
    """Windows padded on the right to a common length.

    Attributes:
        ids: token ids.
        attended: False on padding.
        special: True on BOS, EOS, PAD and the tokenizer's other special tokens.
        response: True on tokens of a response.
        documents: index of each window's document.
    """

    ids: Int[Tensor, "batch seq"]
    attended: Bool[Tensor, "batch seq"]
    special: Bool[Tensor, "batch seq"]
    response: Bool[Tensor, "batch seq"]
    documents: Int[Tensor, " batch"]

    @property
    def kept(self) -> Bool[Tensor, "batch seq"]:
        """Tokens that count: attended and not special."""
        return self.attended & ~self.special

    def inputs(
        self, device: torch.device | str
    ) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
        """What a model is called with: ids and attention mask, on its device."""
        return sent(self.ids, device), sent(self.attended.long(), device)


def opening_ids(tokenizer: Any) -> list[int]:
    """The special tokens this tokenizer puts before a text of its own accord (BOS, or none)."""
    whole: list[int] = list(tokenizer("a")["input_ids"])
    plain: list[int] = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    starts = range(len(whole) - len(plain) + 1)
    return whole[: next(s for s in starts if whole[s : s + len(plain)] == plain)]


def windows(documents: Sequence[Document], tokenizer: Any, context: int) -> list[Window]:
    """Every document cut into windows of at most `context` tokens, each opened afresh.

    Conversations go through the tokenizer's chat template where it has one.

    A response is closed by EOS where the tokenizer has one, so that adapters learn to stop. What
    the text brings of either, as texts that a chat template wrote do, is not doubled.

    Raises:
        InputError: the context leaves no room after what opens a window.
    """
    if not documents:
        return []
    opening = opening_ids(tokenizer)
    if context <= len(opening):
        raise InputError(
            f"a context of {context} tokens leaves no room after the {len(opening)} that open it; "
            "give a larger one"
        )
    spelled = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    through_template = tokenizer.chat_template is not None
    plain = [d for d in documents if not (d.messages and through_template)]
    encoded = _encoded(_texts(plain, tokenizer), tokenizer)
    found: list[Window] = []
    for index, document in enumerate(documents):
        if document.messages and through_template:
            found += _conversation(document, index, tokenizer, opening, context)
            continue
        ids: list[int] = []
        response: list[bool] = []
        closings: set[int] = set()
        for segment in document.segments:
            tokens = next(encoded)
            closing = tokenizer.eos_token_id
            if segment.response and closing is not None and tokens[-1:] != [closing]:
                tokens = [*tokens, closing]
                closings.add(len(ids) + len(tokens) - 1)
            ids += tokens
            response += [segment.response] * len(tokens)
        found += _cut(ids, response, index, opening, context, spelled, closings)
    return found


def prompt_of(document: Document, tokenizer: Any) -> tuple[str, list[int]]:
    """What comes before a document's first response: as it is shown, and its token ids.

    A conversation goes through the tokenizer's chat template where it has one, as in `windows`, and
    is shown as what was asked.
    """
    opening = opening_ids(tokenizer)
    if not document.messages or tokenizer.chat_template is None:
        plain = tokenizer(document.prompt, add_special_tokens=False)["input_ids"]
        return document.prompt, [*opening, *plain]
    ids, response, _ = templated(document.messages, tokenizer)
    before = ids[: response.index(True)] if True in response else ids
    asked = takewhile(lambda message: message.role != ASSISTANT, document.messages)
    opened = opening if before[: len(opening)] != opening else []
    return "\n\n".join(message.content for message in asked), [*opened, *before]


def _conversation(
    document: Document, index: int, tokenizer: Any, opening: list[int], context: int
) -> Iterator[Window]:
    """The windows of a conversation, as the chat template writes it."""
    ids, response, written = templated(document.messages, tokenizer)
    for number, window in enumerate(
        _cut(ids, response, index, opening, context, spelled=set(), closings=set())
    ):
        # What the contents spell is counted once, with the first window.
        yield replace(window, written=written if number == 0 else 0)


def _texts(documents: Sequence[Document], tokenizer: Any) -> Iterator[str]:
    """The text of every segment; a response that brings its own EOS ends with it."""
    closing = tokenizer.eos_token
    for document in documents:
        for segment in document.segments:
            ended = segment.text.rstrip()
            closed = segment.response and closing and ended.endswith(closing)
            yield ended if closed else segment.text


def _cut(
    ids: list[int],
    response: list[bool],
    document: int,
    opening: list[int],
    context: int,
    spelled: set[int],
    closings: set[int],
) -> Iterator[Window]:
    """The windows of one document; `closings` are the places of EOS that are not the text's own."""
    n, start, marks = len(opening), 0, [False] * len(opening)
    while start < len(ids):
        written = 0
        while n and ids[start : start + n] == opening:
            start += n
            written += n
        end = start + context - n
        body = ids[start:end]
        written += sum(
            token in spelled and place not in closings for place, token in enumerate(body, start)
        )
        if body:
            yield Window(opening + body, marks + response[start:end], document, written)
        start = end


def _encoded(texts: Iterable[str], tokenizer: Any) -> Iterator[list[int]]:
    """The token ids of every text, without special tokens of the tokenizer's own accord.

    In calls of bounded size: what a tokenizer keeps of a text takes hundreds of times its memory.
    """
    # One object a token id, however often it stands in the texts.
    known: dict[int, int] = {}

    def flush() -> Iterator[list[int]]:
        if waiting:
            found = tokenizer(waiting, add_special_tokens=False, verbose=False)["input_ids"]
            waiting.clear()
            for ids in found:
                yield [known.setdefault(token, token) for token in ids]

    waiting: list[str] = []
    size = 0
    for text in texts:
        if len(text) > _PIECE:
            yield from flush()
            size = 0
            yield [known.setdefault(token, token) for token in _long(text, tokenizer)]
            continue
        waiting.append(text)
        size += len(text)
        if size > _PIECE or len(waiting) >= _TOGETHER:
            yield from flush()
            size = 0
    yield from flush()


def _long(text: str, tokenizer: Any) -> list[int]:
    """The token ids of a long text: of pieces that overlap, joined where both say the same.

    Each piece is left where a stretch of tokens, far from the ends of either, is the same in the
    next. Where none is, or the tokenizer gives no offsets, the text is encoded whole.
    """
    if not tokenizer.is_fast:
        whole: list[int] = list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
        return whole
    found: list[int] = []
    ids, starts = _piece(text, 0, tokenizer)
    done, begin = 0, 0
    while begin + _PIECE < len(text):
        following = begin + _PIECE - _OVERLAP
        next_ids, next_starts = _piece(text, following, tokenizer)
        seam = _seam((ids, starts), (next_ids, next_starts), following)
        if seam is None:
            return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
        here, there = seam
        found += ids[done:here]
        ids, starts, done, begin = next_ids, next_starts, there, following
    return found + ids[done:]


def _piece(text: str, begin: int, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids of the piece that begins there, and where in the text each token begins."""
    encoded = tokenizer(
        text[begin : begin + _PIECE],
        add_special_tokens=False,
        verbose=False,
        return_offsets_mapping=True,
    )
    return list(encoded.input_ids), [begin + first for first, _ in encoded.offset_mapping]


def _seam(
    before: tuple[list[int], list[int]], after: tuple[list[int], list[int]], begin: int
) -> tuple[int, int] | None:
    """Places in two overlapping pieces at which one may go over into the other."""
    (ids, starts), (next_ids, next_starts) = before, after
    # The first of several tokens that begin together, as the bytes of one character do.
    places = {first: i for i, first in reversed(list(enumerate(starts))) if first >= begin}
    margin = _OVERLAP // 4
    for there, first in enumerate(next_starts):
        if first > begin + _OVERLAP - margin:
            return None
        here = places.get(first)
        if first < begin + margin or here is None or next_starts[there - 1] == first:
            continue
        if ids[here - _ALIKE : here + _ALIKE] == next_ids[there - _ALIKE : there + _ALIKE]:
            return here, there
    return None


def require_rows(found: Sequence[Window], model: nn.Module, tokenizer: Any) -> None:
    """Refuse token ids that the model has no embedding for.

    Raises:
        InputError: names the first such token.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    beyond = next((t for window in found for t in window.ids if t >= rows), None)
    if beyond is not None:
        token = tokenizer.convert_ids_to_tokens(beyond)
        raise InputError(
            f"the tokenizer has {len(tokenizer):,} tokens and the model rows for {rows:,}: the "
            f'texts hold "{token}" (id {beyond}), which has none; give the tokenizer the model was '
            "trained with, or a model whose embeddings were resized"
        )


def token_text(tokenizer: Any, token: int) -> str:
    """A token by itself; bytes that make no whole character stand as `⟨0xE2⟩`."""
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    if "\ufffd" not in text:
        return text
    piece = str(tokenizer.convert_ids_to_tokens(token))
    if single := _BYTE.fullmatch(piece):
        return f"⟨0x{single[1].upper()}⟩"
    if not set(piece) <= _BYTES.keys():
        return text
    # Bytes that are no UTF-8 become halves of surrogate pairs, which UTF-8 has none of.
    whole = bytes(_BYTES[character] for character in piece).decode("utf-8", "surrogateescape")
    return "".join(f"⟨0x{ord(c) - 0xDC00:02X}⟩" if "\udc80" <= c <= "\udcff" else c for c in whole)


def _byte_alphabet() -> dict[str, int]:
    """{character: byte} of byte-level BPE: printable bytes stand for themselves (GPT-2)."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    shifted = {chr(256 + index): byte for index, byte in enumerate(others)}
    return {**{chr(byte): byte for byte in own}, **shifted}


# A byte as SentencePiece writes one that has no piece.
_BYTE: Final = re.compile("<0x([0-9A-Fa-f]{2})>")
_BYTES: Final = _byte_alphabet()


def count_tokens(found: Sequence[Window], tokenizer: Any) -> int:
    """Tokens that will count: all but special ones."""
    special = set(tokenizer.all_special_ids)
    return sum(token not in special for window in found for token in window.ids)


def pad(chosen: Sequence[Window], tokenizer: Any, padding: int) -> TokenBatch:
    """One batch of windows, padded on the right with id `padding`."""
    length = max(len(window.ids) for window in chosen)
    shape = (len(chosen), length)
    ids = torch.full(shape, padding)
    attended = torch.zeros(shape, dtype=torch.bool)
    response = torch.zeros(shape, dtype=torch.bool)
    for row, window in enumerate(chosen):
        width = len(window.ids)
        ids[row, :width] = torch.tensor(window.ids)
        attended[row, :width] = True
        response[row, :width] = torch.tensor(window.response)
    special = torch.isin(ids, torch.tensor(sorted(tokenizer.all_special_ids), dtype=torch.long))
    documents = torch.tensor([window.document for window in chosen])
    return TokenBatch(ids, attended, special, response, documents)


def batches(
    found: Sequence[Window], tokenizer: Any, padding: int, tokens_per_batch: int
) -> Iterator[TokenBatch]:
    """Batches of at most `tokens_per_batch` padded tokens, windows of like length together."""
    order = sorted(range(len(found)), key=lambda i: len(found[i].ids))
    chosen: list[Window] = []
    for index in order:
        width = len(found[index].ids)
        if chosen and (len(chosen) + 1) * width > tokens_per_batch:
            yield pad(chosen, tokenizer, padding)
            chosen = []
        chosen.append(found[index])
    if chosen:
        yield pad(chosen, tokenizer, padding)

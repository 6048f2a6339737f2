"""Windows and batches: opened once, closed by EOS, never too long, every token in its place."""

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import (
    Window,
    batches,
    count_tokens,
    opening_ids,
    pad,
    windows,
)

BOS, EOS, UNKNOWN, FIRST = 0, 1, 2, 3


@pytest.fixture(scope="module")
def plain_tokenizer(tiny_checkpoint):
    """Words w0 to w60; opens a text with nothing."""
    return AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))


@pytest.fixture(scope="module")
def embedded_tokenizer(embedded_model_path):
    """Opens a text with BOS of its own accord."""
    return AutoTokenizer.from_pretrained(embedded_model_path)


def words(*numbers, response=False):
    return Segment(" ".join(f"w{i}" for i in numbers), response)


def test_opening_is_what_the_tokenizer_adds(plain_tokenizer, embedded_tokenizer):
    assert plain_tokenizer("a")["input_ids"] == [UNKNOWN]
    assert opening_ids(plain_tokenizer) == []
    assert opening_ids(embedded_tokenizer) == [embedded_tokenizer.bos_token_id]


def test_windows_by_hand(plain_tokenizer):
    documents = [
        Document((words(0, 1, 2), words(3, 4, response=True), words(5))),
        Document((words(6),)),
    ]
    assert windows(documents, plain_tokenizer, context=5) == [
        Window([3, 4, 5, 6, 7], [False, False, False, True, True], 0),
        Window([EOS, 8], [True, False], 0),
        Window([9], [False], 1),
    ]
    assert windows([], plain_tokenizer, context=5) == []


def test_every_window_is_opened_once_and_none_is_longer_than_the_context(embedded_tokenizer):
    bos = embedded_tokenizer.bos_token_id
    texts = ["Once upon a time there was a cat. " * n for n in (1, 7, 30)]
    documents = [Document((Segment(text),)) for text in texts]
    found = windows(documents, embedded_tokenizer, context=16)
    assert max(len(window.ids) for window in found) == 16
    assert all(window.ids[0] == bos and window.ids.count(bos) == 1 for window in found)
    for index, text in enumerate(texts):
        joined = [t for w in found if w.document == index for t in w.ids[1:]]
        assert joined == embedded_tokenizer(text, add_special_tokens=False)["input_ids"]


def test_responses_are_marked_and_closed(embedded_tokenizer):
    eos = embedded_tokenizer.eos_token_id
    document = Document(
        (Segment("Question? "), Segment("An answer.", response=True), Segment(" More. "))
    )
    (window,) = windows([document], embedded_tokenizer, context=64)
    marked = [t for t, mark in zip(window.ids, window.response, strict=True) if mark]
    assert embedded_tokenizer.decode(marked[:-1]) == "An answer."
    assert marked[-1] == eos
    assert window.ids.count(eos) == 1
    unmarked = [t for t, mark in zip(window.ids[1:], window.response[1:], strict=True) if not mark]
    assert embedded_tokenizer.decode(unmarked) == "Question?  More. "


def test_count_leaves_special_tokens_out(plain_tokenizer):
    found = [Window([BOS, 5, 6, EOS], [False] * 4, 0), Window([7, UNKNOWN], [False] * 2, 1)]
    assert count_tokens(found, plain_tokenizer) == 3


def test_pad_by_hand(plain_tokenizer):
    chosen = [Window([BOS, 9, 8], [False, False, True], 4), Window([7], [True], 2)]
    batch = pad(chosen, plain_tokenizer, padding=EOS)
    assert batch.ids.tolist() == [[BOS, 9, 8], [7, EOS, EOS]]
    assert batch.attended.tolist() == [[True, True, True], [True, False, False]]
    assert batch.special.tolist() == [[True, False, False], [False, True, True]]
    assert batch.response.tolist() == [[False, False, True], [True, False, False]]
    assert batch.kept.tolist() == [[False, True, True], [True, False, False]]
    assert batch.documents.tolist() == [4, 2]


@pytest.mark.parametrize("tokens_per_batch", [20, 64, 10_000])
def test_batches_hold_every_window_once_and_keep_to_their_size(plain_tokenizer, tokens_per_batch):
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 20, (50,), generator=random).tolist()
    found = [Window([FIRST + i % 50] * n, [False] * n, i) for i, n in enumerate(lengths)]
    made = list(batches(found, plain_tokenizer, EOS, tokens_per_batch))
    assert all(batch.ids.numel() <= tokens_per_batch for batch in made)
    assert sorted(i for batch in made for i in batch.documents.tolist()) == list(range(50))
    for batch in made:
        for row, index in enumerate(batch.documents.tolist()):
            assert batch.ids[row, batch.attended[row]].tolist() == found[index].ids
    if tokens_per_batch == 10_000:
        assert len(made) == 1

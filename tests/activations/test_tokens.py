"""Windows and batches: opened once, closed by EOS, never too long, every token in its place."""

import copy
import re

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lorascope.activations import tokens
from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import (
    Window,
    batches,
    count_tokens,
    opening_ids,
    pad,
    require_rows,
    token_text,
    windows,
)
from lorascope.errors import InputError
from lorascope.models.load import padding_id

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


def spell(tokenizer, *pieces):
    """Text in which whole numbers stand for special tokens."""
    return "".join(p if isinstance(p, str) else tokenizer.convert_ids_to_tokens(p) for p in pieces)


def test_special_tokens_that_a_text_brings_are_not_doubled(embedded_tokenizer):
    bos, eos = embedded_tokenizer.bos_token_id, embedded_tokenizer.eos_token_id
    body = "Once upon a time there was a cat."
    (plain,) = windows([Document((Segment(body),))], embedded_tokenizer, 64)
    for opened in ((bos,), (bos, bos)):
        text = spell(embedded_tokenizer, *opened, body)
        (found,) = windows([Document((Segment(text),))], embedded_tokenizer, 64)
        assert found.ids == plain.ids
        assert found.written == len(opened)
    assert plain.written == 0
    bare = Document((Segment("Q? "), Segment("An answer.", response=True)))
    (wanted,) = windows([bare], embedded_tokenizer, 64)
    assert wanted.ids[-1] == eos
    for ending in ("", "\n"):
        answer = spell(embedded_tokenizer, "An answer.", eos, ending)
        closed = Document((Segment("Q? "), Segment(answer, response=True)))
        (found,) = windows([closed], embedded_tokenizer, 64)
        assert (found.ids, found.response) == (wanted.ids, wanted.response)
        assert found.written == 1
    assert wanted.written == 0


def test_a_text_that_opens_anew_in_its_middle_is_opened_once_there(embedded_tokenizer):
    bos = embedded_tokenizer.bos_token_id
    first = "Once upon a time there was a cat."
    room = len(embedded_tokenizer(first, add_special_tokens=False)["input_ids"])
    text = spell(embedded_tokenizer, first, bos, "Then a dog came by.")
    found = windows([Document((Segment(text),))], embedded_tokenizer, room + 1)
    assert [w.ids.count(bos) for w in found] == [1] * len(found)
    assert sum(w.written for w in found) == 1
    assert embedded_tokenizer.decode(found[1].ids[1:]).startswith("Then a dog")


def test_special_tokens_spelled_in_contents_are_counted(embedded_tokenizer):
    eos = embedded_tokenizer.eos_token_id
    text = spell(embedded_tokenizer, "He said ", eos, " and ", eos, " again.")
    document = Document((Segment(text), Segment("Yes.", response=True)))
    found = windows([document, document], embedded_tokenizer, 8)
    assert [sum(w.written for w in found if w.document == i) for i in (0, 1)] == [2, 2]
    assert sum(w.ids.count(eos) for w in found) == 6


def test_a_context_that_only_the_opening_fills_is_refused(embedded_tokenizer):
    with pytest.raises(InputError, match="leaves no room"):
        windows([Document((Segment("a"),))], embedded_tokenizer, 1)


def test_ids_beyond_the_embedding_are_refused(embedded_tokenizer):
    model = torch.nn.Module()
    model.get_input_embeddings = lambda: torch.nn.Embedding(100, 2)
    require_rows([Window([0, 99], [False] * 2, 0)], model, embedded_tokenizer)
    token = re.escape(embedded_tokenizer.convert_ids_to_tokens(100))
    with pytest.raises(InputError, match=rf'"{token}" \(id 100\), which has none'):
        require_rows([Window([0, 100], [False] * 2, 0)], model, embedded_tokenizer)


def test_a_tokenizer_without_special_tokens_masks_padding_alone(plain_tokenizer):
    bare = copy.deepcopy(plain_tokenizer)
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        setattr(bare, name, None)
    found = windows(
        [Document((words(0, 1), words(2, response=True))), Document((words(3),))], bare, 8
    )
    assert [w.ids for w in found] == [[3, 4, 5], [6]]
    batch = pad(found, bare, padding_id(bare))
    assert batch.kept.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize("which", ["embedded", "plain", "metaspace"])
def test_a_long_text_in_pieces_has_the_tokens_of_the_whole(
    embedded_tokenizer, plain_tokenizer, which, monkeypatch
):
    monkeypatch.setattr(tokens, "_PIECE", 3000)
    monkeypatch.setattr(tokens, "_OVERLAP", 600)
    given = {"embedded": embedded_tokenizer, "plain": plain_tokenizer, "metaspace": metaspace()}
    tokenizer = given[which]
    random = torch.Generator().manual_seed(3)
    parts = [
        "w3",
        "Once",
        "upon",
        "été",
        "\U0001f600",
        "it's",
        "12345",
        "\n\n",
        "  ",
        "naïve",
        "w60",
    ]
    drawn = torch.randint(len(parts), (4000,), generator=random).tolist()
    text = " ".join(parts[i] for i in drawn)
    calls = []
    pieces = tokens._piece
    monkeypatch.setattr(tokens, "_piece", lambda *a: calls.append(1) or pieces(*a))
    found = windows([Document((Segment(text),))], tokenizer, 64)
    opening = len(opening_ids(tokenizer))
    joined = [t for w in found for t in w.ids[opening:]]
    assert joined == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(calls) > 5


def test_a_long_text_without_seams_is_encoded_whole(embedded_tokenizer, monkeypatch):
    monkeypatch.setattr(tokens, "_PIECE", 300)
    monkeypatch.setattr(tokens, "_OVERLAP", 60)
    text = "a" * 1000  # one run of letters: no two pieces need cut it alike
    found = windows([Document((Segment(text),))], embedded_tokenizer, 4096)
    assert found[0].ids[1:] == embedded_tokenizer(text, add_special_tokens=False)["input_ids"]


def metaspace():
    """A tokenizer that puts a space before a text, as SentencePiece's do."""
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        ["Once upon a time it was, w3 w60 été naïve it's 12345 once more"] * 3,
        trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>"]),
    )
    return PreTrainedTokenizerFast(tokenizer_object=trained, unk_token="<unk>")


def test_bytes_that_are_no_character_are_named_in_byte_level_vocabularies(embedded_tokenizer):
    vocabulary = embedded_tokenizer.get_vocab()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    alone = {token_text(embedded_tokenizer, vocabulary[c]) for c in alphabet if c in vocabulary}
    # Of 256 bytes the upper half begins, continues or ends a character, or is in none.
    assert {f"⟨0x{byte:02X}⟩" for byte in range(0x80, 0x100)} <= alone
    assert {"\x14", "\n", "a", " "} <= alone
    assert not any("\ufffd" in text for text in alone)
    (ordinary,) = embedded_tokenizer(" river", add_special_tokens=False)["input_ids"][:1]
    assert token_text(embedded_tokenizer, ordinary) == embedded_tokenizer.decode([ordinary])


def test_bytes_that_are_no_character_are_named_in_vocabularies_with_byte_pieces():
    pieces = {"<unk>": 0, "<0x14>": 1, "<0xE2>": 2, "<0xac>": 3, "\ufffd": 4, "x": 5}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert [token_text(wrapped, token) for token in range(1, 6)] == [
        *("\x14", "⟨0xE2⟩", "⟨0xAC⟩"),
        # A text may hold the character itself.
        "\ufffd",
        "x",
    ]

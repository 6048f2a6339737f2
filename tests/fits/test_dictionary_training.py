"""Dictionaries trained for the comparison: streamed and end to end, saved on the way, resumed."""

from itertools import pairwise

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.activations.streamed import StreamedRows
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError
from lorascope.fits import run as running
from lorascope.fits.conditions import conditions_of
from lorascope.fits.dictionary_training import EndToEnd, train_end_to_end, train_streamed
from lorascope.fits.wrapper import Spliced
from lorascope.models.freezing import fingerprint
from lorascope.outputs.evaluation import evaluate
from lorascope.training import checkpoints
from lorascope.training.architectures import TopK
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting
from lorascope.training.snapshots import Saving, read_snapshots

TOPK = TopK(n_latents=64, k=8)
FITTING = Fitting(batch=64, rate=4e-3, products="float32")
END_TO_END = EndToEnd(tokens=2500, batch=8, rate=3e-3, products="float32")


@pytest.fixture
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))


@pytest.fixture
def streamed(tiny_model, cut, tokenizer):
    """`streamed(tokens, **arguments)`: a dictionary of block 1 and its history."""

    def train(tokens=3000, **arguments):
        training = cut(tokenizer)[0]
        return train_streamed(
            tiny_model(),
            tokenizer,
            "layers.1",
            training,
            TOPK,
            FITTING,
            tokens=tokens,
            model="tiny",
            **arguments,
        )

    return train


@pytest.fixture
def end_to_end(tiny_model, cut, tokenizer):
    """`end_to_end(model=None, **arguments)`: a dictionary of block 1 and its history."""

    def train(model=None, settings=END_TO_END, **arguments):
        training = cut(tokenizer)[0]
        module = model or tiny_model()
        return train_end_to_end(
            module, tokenizer, "1", training, TOPK, settings, model="tiny", **arguments
        )

    return train


def same(one, other):
    mine, theirs = dict(one.named_buffers()), dict(other.named_buffers())
    return all(torch.equal(mine[name], theirs[name]) for name in mine | theirs)


def test_streamed_is_what_stored_rows_give(streamed, tiny_model, cut, tokenizer):
    training = cut(tokenizer)[0]
    rows = StreamedRows(tiny_model(), tokenizer, "layers.1", training)
    stored = torch.cat(list(rows.chunks()))
    assert len(rows) == len(stored) == 600
    dictionary, history = streamed(tokens=3000)
    assert len(history.records) == 47  # 3000 tokens in batches of 64, rounded up
    fitting = FITTING.model_copy(update={"epochs": 3000 / len(rows)})
    assert same(dictionary, fit(TOPK, stored, fitting=fitting))
    error = (dictionary(stored) - stored).square().sum() / stored.var(0, correction=0).sum() / 600
    assert error < 0.6
    assert dictionary.card.site == "layers.1"
    assert dictionary.card.tokens == 47 * 64
    assert dictionary.k == 8


def test_rows_read_again_are_the_same_in_any_window(tiny_model, cut, tokenizer):
    rows = StreamedRows(tiny_model(), tokenizer, "1", cut(tokenizer)[0], batch_tokens=64)
    chunks = list(rows.chunks())
    assert [len(chunk) for chunk in chunks] == list(rows.sizes)
    assert len(chunks) > 5
    again = list(rows.chunks([3, 0]))
    assert torch.equal(again[0], chunks[3])
    assert torch.equal(again[1], chunks[0])
    assert len(rows.sample(200).rows) in range(150, 260)
    assert len(rows.sample(10**6).rows) == len(rows)


@pytest.mark.parametrize("condition", ["streamed", "end_to_end"])
def test_snapshots_hold_tokens_seconds_and_a_dictionary(condition, streamed, end_to_end, tmp_path):
    train = {"streamed": streamed, "end_to_end": end_to_end}[condition]
    dictionary, history = train(saving=Saving(tmp_path, (0.25, 0.5, 1.0), before=100.0))
    plain, _ = train()
    assert same(dictionary, plain)  # saving is only looking
    found = read_snapshots(tmp_path)
    steps = len(history.records)
    assert [one.step for one in found] == [round(share * steps) for share in (0.25, 0.5, 1.0)]
    assert all(early.tokens < late.tokens for early, late in pairwise(found))
    assert all(100 < early.seconds < late.seconds for early, late in pairwise(found))
    assert found[-1].tokens == dictionary.card.tokens
    assert found[-1].seconds == pytest.approx(history.series("seconds")[-1])
    saved = [open_dictionary(one.folder) for one in found]
    assert same(saved[-1], dictionary)
    assert not same(saved[0], saved[1])
    assert saved[0].card.tokens == found[0].tokens
    assert read_snapshots(tmp_path / "nowhere") == []


class Stopped(Exception):  # noqa: N818 - a signal
    """Ends a run in its middle."""


@pytest.mark.parametrize("condition", ["streamed", "end_to_end"])
def test_a_stopped_run_goes_on_bit_for_bit(condition, streamed, end_to_end, tmp_path, monkeypatch):
    train = {"streamed": streamed, "end_to_end": end_to_end}[condition]
    whole, _ = train(saving=Saving(tmp_path / "whole"))
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    real = checkpoints.Checkpoint.__init__

    def eager(self, path, identity, seconds=0.0):
        real(self, path, identity, 0.0)

    monkeypatch.setattr(checkpoints.Checkpoint, "__init__", eager)

    def stop(progress):
        if progress.step == 12:
            raise Stopped

    arguments = {"saving": Saving(tmp_path / "parts"), "checkpoint": tmp_path / "state.pt"}
    with pytest.raises(Stopped):
        train(observers=[stop], **arguments)
    seen = []
    resumed, history = train(observers=[lambda progress: seen.append(progress.step)], **arguments)
    assert seen[0] == 12
    assert same(resumed, whole)
    seconds = history.series("seconds")
    assert all(early < late for early, late in pairwise(seconds))
    both = [read_snapshots(tmp_path / name) for name in ("whole", "parts")]
    assert [one.tokens for one in both[0]] == [one.tokens for one in both[1]]
    assert len(both[0]) == 10
    assert all(
        same(open_dictionary(one.folder), open_dictionary(other.folder))
        for one, other in zip(*both, strict=True)
    )
    assert not (tmp_path / "state.pt").exists()


def test_end_to_end_trains_what_the_model_predicts(end_to_end, tiny_model, cut, tokenizer):
    model = tiny_model()
    before = fingerprint(model)
    first, _ = end_to_end(model, END_TO_END.model_copy(update={"tokens": 90, "rate": 1e-9}))
    dictionary, history = end_to_end(model)
    assert fingerprint(model) == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    kl = history.series("kl")
    assert sum(kl[-5:]) < 0.7 * sum(kl[:5])
    torch.testing.assert_close(dictionary.directions.norm(dim=1), torch.ones(64))
    held_out = cut(tokenizer)[1]
    special = tuple(tokenizer.all_special_ids)
    kls = []
    for each in (first, dictionary):
        conditions = conditions_of(Spliced(model, {1: each}, special_ids=special), {1: each})
        found = evaluate(model, tokenizer, held_out, conditions["original"], conditions)
        kls.append(found["spliced"].mean_kl)
    assert kls[1] < 0.7 * kls[0]
    x = torch.cat(list(StreamedRows(model, tokenizer, "1", held_out).chunks()))
    assert ((dictionary.encode(x) > 0).sum(1) <= 8).all()


def test_what_cannot_be_trained_is_one_clear_line(end_to_end, tiny_model, cut, tokenizer):
    with pytest.raises(InputError, match="budget of 20 tokens is smaller than one step"):
        end_to_end(settings=END_TO_END.model_copy(update={"tokens": 20}))
    with pytest.raises(InputError, match="does not exist"):
        StreamedRows(tiny_model(), tokenizer, "layers.9", cut(tokenizer)[0])
    with pytest.raises(InputError, match="no token is left"):
        StreamedRows(tiny_model(), tokenizer, "layers.1", [])

"""Response losses and continuations against loops that go token by token."""

import math

import pytest
import torch

from lorascope.activations.collect import collect
from lorascope.activations.settings import Capture
from lorascope.activations.shards import Shards
from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import Window, windows
from lorascope.measures.behaviour import (
    VariantLosses,
    continuations,
    document_losses,
    response_loss,
)
from lorascope.measures.definitions import definition
from lorascope.models.adapted import load
from lorascope.models.sites import Site
from lorascope.results import Key

NO, YES = False, True
# Document 1 has two windows, the second all response: its first token has nothing before it.
WINDOWS = [
    Window([0, 11, 12, 13, 14, 1], [NO, NO, NO, YES, YES, YES], 0),
    Window([0, 20, 21, 22], [NO, NO, NO, NO], 2),
    Window([0, 30, 31], [NO, NO, YES], 1),
    Window([32, 33, 34, 35], [YES, YES, YES, YES], 1),
]


@pytest.fixture(scope="module")
def model(tiny_checkpoint, save_adapter, tmp_path_factory):
    folder = save_adapter(tmp_path_factory.mktemp("adapter"), target_modules=["q_proj", "up_proj"])
    return load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")


@torch.no_grad()
def naive_losses(model, variant):
    sums, counts = [0.0, 0.0, 0.0], [0, 0, 0]
    with model.variant(variant) as module:
        for window in WINDOWS:
            logits = module(input_ids=torch.tensor([window.ids])).logits[0].double()
            for t in range(1, len(window.ids)):
                if window.response[t]:
                    log_p = torch.log_softmax(logits[t - 1], dim=0)[window.ids[t]]
                    sums[window.document] -= log_p.item()
                    counts[window.document] += 1
    return sums, counts


@pytest.mark.parametrize("batch_tokens", [8, 4096])
@pytest.mark.parametrize("variant", ["base", "a"])
def test_losses_are_those_of_a_loop_over_tokens(model, variant, batch_tokens):
    with model.variant(variant) as module:
        sums, tokens = document_losses(module, model.tokenizer, WINDOWS, batch_tokens)
    expected, counts = naive_losses(model, variant)
    assert tokens.tolist() == counts == [3, 4, 0]
    assert sums.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("batch_tokens", [8, 64])
def test_losses_come_from_the_passes_that_capture(model, batch_tokens, tmp_path):
    """Bit for bit those of passes of their own; streams those of passes that end at the site."""
    settings = Capture(context=16, batch_tokens=batch_tokens, store="float32")
    sites, losses, passes = [Site(0), Site(1)], VariantLosses(3), []
    hook = model.module.register_forward_pre_hook(lambda *_: passes.append(model.current))
    collect(model, WINDOWS, sites, tmp_path / "one", settings, "i", whole=losses.take)
    taken = len(passes)
    collect(model, WINDOWS, sites, tmp_path / "two", settings, "i")
    hook.remove()
    assert taken == len(passes) / 2
    for variant in ("base", "a"):
        with model.variant(variant) as module:
            alone = document_losses(module, model.tokenizer, WINDOWS, batch_tokens)
        assert all(torch.equal(x, y) for x, y in zip(losses.of(variant), alone, strict=True))
        assert alone[0].any()
        one, two = (Shards.open(tmp_path / name) for name in ("one", "two"))
        for site in sites:
            assert torch.equal(one.load(site.name, variant), two.load(site.name, variant))


def test_response_loss_by_hand():
    tokens = torch.tensor([3.0, 1.0, 0.0])
    base = (torch.tensor([6.0, 4.0, 0.0]), tokens)
    adapted = (torch.tensor([3.0, 2.0, 0.0]), tokens)
    found = response_loss(base, adapted, Key(adapter="a", rank=4))
    assert found.value == pytest.approx(5 / 4)
    assert found.chance == pytest.approx(10 / 4)
    assert found.nulls[0].name == "base model"
    assert found.n == 4
    assert found.unit == definition("response_loss").unit
    # Two documents leave no interval, and the base's level stands alone.
    assert all(math.isnan(bound) for bound in found.interval)
    assert (found.nulls[0].low, found.nulls[0].high) == pytest.approx((2.5, 2.5))


def test_both_faces_have_the_same_documents():
    random = torch.Generator().manual_seed(0)
    sums, tokens = torch.rand(30, generator=random) * 9, torch.randint(1, 9, (30,)).float()
    found = response_loss((sums, tokens), (0.5 * sums, tokens), Key())
    level = found.nulls[0]
    assert found.interval == pytest.approx((0.5 * level.low, 0.5 * level.high))


def repeats(ids, token):
    """Whether `token` would end four tokens in a row that stand in `ids` already."""
    return [*ids[-3:], token] in [ids[i : i + 4] for i in range(len(ids) - 3)]


@torch.no_grad()
def greedy(model, variant, ids, count):
    """The likeliest token at a time, of those that repeat no four in a row, until </s>."""
    with model.variant(variant) as module:
        for _ in range(count):
            logits = module(input_ids=torch.tensor([ids])).logits[0, -1]
            ids = [*ids, max((v for v in range(64) if not repeats(ids, v)), key=logits.__getitem__)]
            if ids[-1] == model.tokenizer.eos_token_id:
                break
    return ids


def test_continuations_are_greedy_but_do_not_go_round(model):
    document = Document((Segment("w5 w6 w7"), Segment("w8", response=True)))
    (found,) = continuations(model, [document], new_tokens=12)
    prompt = windows([Document((Segment("w5 w6 w7"),))], model.tokenizer, 32)[0].ids
    for variant, text in (("base", found["base"]), ("a", found["adapted"]["a"])):
        written = greedy(model, variant, prompt, 12)[len(prompt) :]
        assert text == model.tokenizer.decode(written, skip_special_tokens=True).strip()
    assert found["prompt"] == "w5 w6 w7"
    assert model.current == "base"


def test_continuations_stay_within_the_context(model):
    answer = Segment("w1", response=True)
    near = Document((Segment(" ".join(["w3"] * 60)), answer))
    full = Document((Segment(" ".join(["w3"] * 70)), answer))
    (found,) = continuations(model, [full, near], new_tokens=50)
    assert found["prompt"] == near.prompt
    assert 0 < len(found["base"].split()) <= model.context_length - 60

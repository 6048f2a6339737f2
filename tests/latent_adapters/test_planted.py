"""A model built so that one latent read and one written suffice: training finds exactly these."""

import random

import pytest
import torch

from lorascope.activations.tokens import Window
from lorascope.latent_adapters.ablation import ablate, ablation_estimates
from lorascope.latent_adapters.fitting import Examples, fit
from lorascope.latent_adapters.frontier import READ, WRITTEN
from lorascope.latent_adapters.reading import FrozenSite
from lorascope.latent_adapters.removal import without_reading, without_writing
from lorascope.latent_adapters.settings import LatentTraining
from lorascope.latent_adapters.sparsity import Dense, TopM
from lorascope.results import Key

D = TOKENS = 64
TRIGGER, ANSWER = 11, 40
SITE = "layers.1"


def windows(module, count, seed):
    """ANSWER after TRIGGER, and after any other token what the model says itself."""
    draw, kinds = random.Random(seed), ([], [])
    for index in range(2 * count):
        prompt = [draw.randrange(3, 64) for _ in range(5)]
        prompt = [token if token != TRIGGER else 12 for token in prompt]
        changed = index % 2 == 0
        if changed:
            prompt[-1] = TRIGGER
        with torch.no_grad():
            own = int(module(torch.tensor([[0, *prompt]])).logits[0, -1].argmax())
        ids = [0, *prompt, ANSWER if changed else own]
        kinds[not changed].append(Window(ids, [False] * 6 + [True], index))
    return kinds


@pytest.fixture(scope="module")
def train(planted, word_tokens):
    module, dictionary = planted
    reading = FrozenSite(module, word_tokens, dictionary, SITE)
    examples = Examples.read(reading, *windows(module, 48, seed=0))

    def build(sparsity, **changes):
        settings = LatentTraining(
            sparsity=sparsity, steps=250, batch=16, rate=0.05, products="float32"
        )
        return reading, fit(reading, examples, settings.model_copy(update=changes), model="planted")

    return build


@pytest.mark.parametrize(
    "sparsity",
    [TopM(m=1), TopM(m=1, preselect=16)],
    ids=["top_m", "preselected"],
)
def test_exactly_the_planted_latents_are_found(sparsity, train):
    _, fitted = train(sparsity)
    reads, writes = fitted.adapter.support()
    assert (reads.tolist(), writes.tolist()) == ([TRIGGER], [TOKENS + ANSWER])
    (pair,) = fitted.adapter.pairs()
    assert (pair.read, pair.written) == (TRIGGER, TOKENS + ANSWER)
    assert pair.weight > 0
    assert fitted.history.series("effective_read")[0] > 5


def test_without_sparsity_the_same_behaviour_is_spread_over_many(train):
    _, dense = train(Dense())
    assert all(len(ids) == 2 * TOKENS for ids in dense.adapter.support())


def test_the_named_latents_alone_matter(train, planted):
    reading, fitted = train(TopM(m=1))
    changed = reading.see(windows(planted[0], 20, seed=5)[0])
    found = ablate(reading, fitted.adapter, changed)
    assert found.whole < 0.2 < 2 < found.untouched
    for side in (READ, WRITTEN):
        one = found.sides[side]
        assert one.others.shape == (1, 40)
        assert one.named[0] > 1.0
        # Another token of the prompt is taken away, or another token's logit is lowered.
        assert one.others.max() < 0.3 * one.named[0]
        assert one.p.tolist() == [1 / 41]
        assert one.matters.tolist() == [True]
    assert found.sides[READ].latents.tolist() == [TRIGGER]
    assert TRIGGER not in found.sides[READ].alternatives
    by_name = {(e.measure, e.key.dictionary): e for e in ablation_estimates(found, Key("x"))}
    share = by_name["latent.mattering", WRITTEN]
    assert (share.value, share.chance, share.nulls[0].draws) == (1, pytest.approx(2 / 41), 40)
    # A single latent is too few for an interval.
    assert share.verdict == "no verdict"


def test_a_latent_taken_out_is_out_of_the_stream_and_unread(train, planted):
    """By hand: the stream without z d at the trigger, the adapter reading nothing."""
    reading, fitted = train(TopM(m=1))
    module, dictionary = planted
    changed = reading.see(windows(module, 4, seed=6)[0])
    found = ablate(reading, fitted.adapter, changed)
    ids = torch.tensor([one.window.ids for one in changed])
    with torch.no_grad():
        stream = module.model.embed_tokens(ids)
        z = dictionary.encode(stream)[..., TRIGGER, None]
        stream = stream - z * dictionary.directions[TRIGGER]
        log_p = module.lm_head(module.model.norm(stream)).log_softmax(-1)[:, -2]
    loss = -log_p[:, ANSWER].double().mean()
    rise = found.sides[READ].named[0] + found.whole
    assert rise.item() == pytest.approx(loss.item(), abs=1e-4)


def test_what_is_attached_is_what_was_taken_away(train, planted):
    """The adapters that are asked for answers are those whose losses were taken."""
    reading, fitted = train(TopM(m=2))
    module, adapter = planted[0], fitted.adapter
    changed = reading.see(windows(module, 4, seed=6)[0])
    found = ablate(reading, adapter, changed)
    ids = torch.tensor([one.window.ids for one in changed])

    def loss(other):
        with other.attached(module), torch.no_grad():
            log_p = module(ids).logits.log_softmax(-1)[:, -2]
        return -log_p[:, ANSWER].double().mean().item()

    assert loss(adapter) == pytest.approx(found.whole, abs=1e-4)
    for side, latent, other in ((READ, 0, 3), (WRITTEN, 1, 5)):
        one = found.sides[side]
        named, beside = (
            one.latents[latent : latent + 1],
            one.alternatives[latent, other : other + 1],
        )
        if side == READ:
            pair = (without_reading(adapter, named), without_reading(adapter, beside))
        else:
            pair = (
                without_writing(adapter, named, named),
                without_writing(adapter, named, beside),
            )
        rises = (one.named[latent].item(), one.others[latent, other].item())
        for removed, rise in zip(pair, rises, strict=True):
            assert loss(removed) == pytest.approx(found.whole + rise, abs=1e-4)
    # All that is written taken off: the untouched model.
    written = found.sides[WRITTEN].latents
    assert loss(without_writing(adapter, written, written)) == pytest.approx(
        found.untouched, abs=1e-4
    )

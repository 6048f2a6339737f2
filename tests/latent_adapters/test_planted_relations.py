"""Three planted relations are found as three pairs; where none is, no latent tells the topic."""

import random

import pytest
import torch

from lorascope.activations.tokens import Window
from lorascope.latent_adapters.fitting import Examples, fit
from lorascope.latent_adapters.pair_frontier import carried_estimates
from lorascope.latent_adapters.readable import topic_auc
from lorascope.latent_adapters.reading import ActiveLatents, FrozenSite
from lorascope.latent_adapters.settings import LatentTraining
from lorascope.latent_adapters.sparsity import TopM
from lorascope.results import Key

TOKENS, SITE = 64, "layers.1"
RELATIONS = {11: 40, 21: 50, 31: 60}


def windows(module, count, seed, relations):
    """After each of the relations' tokens its own answer; after any other what the model says."""
    draw, kinds = random.Random(seed), ([], [])
    others = [token for token in range(3, 64) if token not in RELATIONS]
    for index in range(2 * count):
        prompt = [draw.choice(others) for _ in range(5)]
        changed = index % 2 == 0
        if changed and relations:
            prompt[-1] = draw.choice(list(relations))
        with torch.no_grad():
            own = int(module(torch.tensor([[0, *prompt]])).logits[0, -1].argmax())
        answer = relations.get(prompt[-1], own) if changed else own
        kinds[not changed].append(Window([0, *prompt, answer], [False] * 6 + [True], index))
    return kinds


def trained(planted, tokens, relations, sparsity, rank, seed=0):
    module, dictionary = planted
    reading = FrozenSite(module, tokens, dictionary, SITE)
    examples = Examples.read(reading, *windows(module, 96, 0, relations))
    shared = {"steps": 250, "batch": 16, "rate": 0.05, "products": "float32"}
    settings = LatentTraining(rank=rank, sparsity=sparsity, seed=seed, **shared)
    return reading, examples, fit(reading, examples, settings, model="planted").adapter


@pytest.mark.parametrize("seed", [0, 1])
def test_three_relations_are_three_pairs_and_no_others(planted, word_tokens, seed):
    sparsity = TopM(m=1, preselect=3)
    _, examples, adapter = trained(planted, word_tokens, RELATIONS, sparsity, 3, seed)
    wanted = {(read, TOKENS + answer) for read, answer in RELATIONS.items()}
    assert {(pair.read, pair.written) for pair in adapter.pairs(None)} == wanted
    assert all(pair.weight > 0 for pair in adapter.pairs(None))
    codes = ActiveLatents.together([one.codes for one in examples.changed])
    two, three = carried_estimates(adapter, adapter, codes, (2, 3), 4, Key("three", 3, seed=0))
    assert 0.3 < two.value < 0.99
    assert three.value == pytest.approx(1.0)


def test_where_nothing_is_planted_nothing_is_found(planted, word_tokens):
    reading, _, adapter = trained(planted, word_tokens, {}, TopM(m=8), 1)
    module = planted[0]
    changed, unchanged = windows(module, 30, 5, {})
    seen = reading.see([*changed, *unchanged])
    about = torch.arange(60) < 30
    named, _ = adapter.support()
    one = topic_auc(reading, seen, about, named, Key("none", 1, seed=0))
    assert one.verdict != "above"


def test_what_tells_the_topic_is_seen_to_tell_it(planted, word_tokens):
    module, dictionary = planted
    reading = FrozenSite(module, word_tokens, dictionary, SITE)
    changed, unchanged = windows(module, 30, 5, {11: 40})
    seen = reading.see([*changed, *unchanged])
    about = torch.arange(60) < 30
    one = topic_auc(reading, seen, about, torch.tensor([11]), Key("one", 1, seed=0))
    assert one.value == pytest.approx(1.0)
    assert one.chance < 0.8

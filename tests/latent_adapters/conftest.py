"""A tiny model, a dictionary that fires on its stream, and a behaviour it can learn."""

import random

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.activations.tokens import Window
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.geometry.chance import isotropic
from lorascope.latent_adapters.fitting import Examples, fit
from lorascope.latent_adapters.reading import FrozenSite
from lorascope.latent_adapters.settings import LatentTraining
from lorascope.randomness import generator

WIDTH, LATENTS, SITE = 32, 80, "layers.0"
TRIGGER, ANSWER, OTHER = 11, 40, 50
QUICK = LatentTraining(steps=40, batch=8, rate=0.03, products="float32")


def a_dictionary(kind="jumprelu", seed=0, d=WIDTH, n=LATENTS):
    directions = isotropic(n, d, generator(seed, "directions"))
    maps = (
        directions.T.clone(),
        torch.zeros(n),
        directions,
        0.1 * torch.randn(d, generator=generator(seed)),
    )
    if kind == "topk":
        return TopKDictionary(*maps, k=12)
    if kind == "relu":
        return ReluDictionary(*maps)
    return JumpReluDictionary(*maps, threshold=torch.full((n,), 0.3))


def behaviour(count=24, seed=0):
    """Windows that end in token ANSWER where TRIGGER ends the prompt, in OTHER where not."""
    draw = random.Random(seed)
    kinds = ([], [])
    for index in range(2 * count):
        prompt = [draw.randrange(20, 40) for _ in range(draw.randrange(4, 8))]
        shows = index % 2 == 0
        if shows:
            prompt[-1] = TRIGGER
        ids = [0, *prompt, ANSWER if shows else OTHER]
        marks = [False] * (len(prompt) + 1) + [True]
        kinds[not shows].append(Window(ids, marks, index))
    return kinds


@pytest.fixture(scope="session")
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))


@pytest.fixture
def reading(tiny_model, tokenizer):
    return FrozenSite(tiny_model("llama"), tokenizer, a_dictionary(), SITE)


@pytest.fixture
def examples(reading):
    return Examples.read(reading, *behaviour(), data="planted", trained_on=["b", "a"])


@pytest.fixture
def trained(reading, examples):
    """`trained(**changes of the settings)`."""

    def build(settings=QUICK, **changes):
        own = settings.model_copy(update=changes)
        return fit(reading, examples, own, model="tiny")

    return build


# Width of the planted model, and its tokens.
_D = 64


@pytest.fixture(scope="module")
def planted(tiny_model):
    """Blocks that add nothing, an embedding and an output matrix of orthogonal rows each.

    Latent v of the first 64 fires on token v alone; latent 64 + v is the direction that raises
    token v's logit and never fires.
    """
    module = tiny_model("llama", hidden_size=_D, num_key_value_heads=4, head_dim=16)
    turns = [torch.linalg.qr(torch.randn(_D, _D, generator=generator(i)))[0] for i in range(2)]
    with torch.no_grad():
        for block in module.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        module.model.norm.weight.fill_(1.0)
        module.model.embed_tokens.weight.copy_(3.0 * turns[0])
        module.lm_head.weight.copy_(turns[1])
    directions = torch.cat(turns)
    threshold = torch.cat([torch.full((_D,), 1.5), torch.full((_D,), 100.0)])
    nothing = torch.zeros(2 * _D)
    dictionary = JumpReluDictionary(
        directions.T.clone(), nothing, directions, torch.zeros(_D), threshold
    )
    return module, dictionary


@pytest.fixture(scope="module")
def word_tokens(tiny_checkpoint):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))

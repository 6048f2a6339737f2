"""Dictionaries of every kind for the tiny models, and text in windows."""

import copy
from functools import cache

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import windows
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.fits.fitting import fit
from lorascope.fits.parts import Lora
from lorascope.fits.settings import Adapting
from lorascope.models.load import load_base
from lorascope.randomness import generator

WIDTH, LATENTS = 32, 96
QUICK = Adapting(lora=Lora(rank=4, rate=1e-2), tokens=2400, batch=8, products="float32")


@pytest.fixture(scope="session")
def make():
    """`make(architecture, seed=0, width=32, site="")`: a random dictionary whose latents fire."""

    def build(architecture="topk", seed=0, width=WIDTH, site=""):
        random = generator(seed, architecture)
        directions = torch.randn(LATENTS, width, generator=random)
        directions /= directions.norm(dim=1, keepdim=True)
        bias = 0.1 * torch.randn(LATENTS, generator=random)
        middle = 0.1 * torch.randn(width, generator=random)
        parts, card = (directions.T.clone(), bias, directions, middle), Card(site=site)
        if architecture == "topk":
            return TopKDictionary(*parts, k=12, card=card)
        if architecture == "relu":
            return ReluDictionary(*parts, card=card)
        if architecture == "gated":
            scales = [0.2 * torch.randn(LATENTS, generator=random) for _ in range(2)]
            return GatedDictionary(*parts, *scales, card=card)
        thresholds = 0.3 + torch.rand(LATENTS, generator=random)
        if architecture == "batch_topk":
            thresholds = torch.full((LATENTS,), 0.8)
        return JumpReluDictionary(*parts, thresholds, card=card)

    return build


@pytest.fixture(scope="session")
def identity_dictionary():
    """Two latents for each axis, one for each sign: reconstructs everything exactly."""
    eye = torch.eye(WIDTH)
    encoder = torch.cat([eye, -eye], dim=1)
    return ReluDictionary(encoder, torch.zeros(2 * WIDTH), encoder.T.clone(), torch.zeros(WIDTH))


@pytest.fixture(scope="session")
def tokens():
    """Ids [3, 10] that begin with <s>, and a mask with padding on the right of two rows."""
    ids = torch.randint(3, 64, (3, 10), generator=generator(1, "tokens"))
    ids[:, 0] = 0
    mask = torch.ones_like(ids)
    mask[1, 7:] = mask[2, 4:] = 0
    return ids, mask


@pytest.fixture(scope="session")
def cut():
    """`cut(tokenizer)`: (windows to fit on, windows held out), texts of a pattern one can learn."""

    def build(tokenizer):
        words = [
            [f"w{(7 * i + 3 * j * (1 + i % 2)) % 50}" for j in range(8 + i % 5)] for i in range(80)
        ]
        documents = [Document((Segment(" ".join(each)),)) for each in words]
        return windows(documents[:60], tokenizer, 16), windows(documents[60:], tokenizer, 16)

    return build


@pytest.fixture(scope="session")
def loaded(tiny_checkpoint):
    """`loaded(architecture)`: the tiny model as `load_base` gives it, to be copied."""
    return cache(
        lambda architecture: load_base(str(tiny_checkpoint(architecture)), device="cpu")[0]
    )


@pytest.fixture
def go(tiny_checkpoint, loaded, cut, tmp_path):
    """`go(dictionaries, architecture, name, fit's own arguments, **changes of the settings)`.

    Changes of LoRA's settings are given beside the others.
    """

    def start(
        dictionaries, architecture="llama", name="out", arguments=None, prepare=None, **changes
    ):
        place = str(tiny_checkpoint(architecture))
        model = copy.deepcopy(loaded(architecture))
        if prepare is not None:
            prepare(model)
        # some architectures would read its files with a tokenizer of their own
        tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))
        of_lora = {name: changes.pop(name) for name in Lora.model_fields if name in changes}
        lora = QUICK.lora.model_copy(update=of_lora)
        settings = QUICK.model_copy(update={"lora": lora, **changes})
        fitted = fit(
            model,
            tokenizer,
            dictionaries,
            *cut(tokenizer),
            tmp_path / name,
            settings,
            model=place,
            **{"random_draws": 0, "evaluations": 0, **(arguments or {})},
        )
        return fitted, model

    return start

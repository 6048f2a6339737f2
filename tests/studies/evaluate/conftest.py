"""A tiny model with a word tokenizer, dictionaries of it that can be worked out by hand."""

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import windows
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.models.load import load_base
from lorascope.models.sites import parse_site
from lorascope.studies.evaluate.subjects import OpenedSubject

WIDTH = 32
SITE = parse_site("layers.1")


@pytest.fixture(scope="session")
def loaded(tiny_checkpoint):
    """(the tiny Llama, its tokenizer)."""
    folder = tiny_checkpoint("llama")
    return load_base(str(folder), device="cpu")[0], AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def identity_dictionary():
    """Two latents for each axis, one for each sign: reconstructs everything exactly."""
    eye = torch.eye(WIDTH)
    encoder = torch.cat([eye, -eye], dim=1)
    return ReluDictionary(encoder, torch.zeros(2 * WIDTH), encoder.T.clone(), torch.zeros(WIDTH))


@pytest.fixture(scope="session")
def cut(loaded):
    """(windows to learn from, windows held out)."""
    words = [
        [f"w{(7 * i + 3 * j * (1 + i % 2)) % 50}" for j in range(8 + i % 5)] for i in range(60)
    ]
    documents = [Document((Segment(" ".join(each)),)) for each in words]
    tokenizer = loaded[1]
    return windows(documents[:40], tokenizer, 16), windows(documents[40:], tokenizer, 16)


@pytest.fixture
def subject(loaded):
    """`subject({site: dictionary}, **fields)`: on the tiny model."""

    def build(dictionaries=None, **fields):
        module, tokenizer = loaded
        placed = {parse_site(site): one for site, one in (dictionaries or {}).items()}
        special = tuple(tokenizer.all_special_ids)
        return OpenedSubject(
            "mine", module, tokenizer, placed, placed, **{"special_ids": special, **fields}
        )

    return build

"""Small dictionaries of both architectures, every tensor different from every other."""

import pytest
import torch

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary

D, N = 5, 9


@pytest.fixture
def random_dictionary():
    """`random_dictionary(architecture, subtract_bias=True, card=None)`, width 5, 9 latents."""

    def build(architecture, subtract_bias=True, card=None):
        random = torch.Generator().manual_seed(7)
        draw = [torch.randn(*s, generator=random) for s in ((D, N), (N,), (N, D), (D,))]
        options = {"subtract_bias": subtract_bias, "card": card or Card()}
        if architecture == "relu":
            return ReluDictionary(*draw, **options)
        return JumpReluDictionary(*draw, torch.rand(N, generator=random) + 0.2, **options)

    return build


@pytest.fixture
def rows():
    """Forty rows of width 5."""
    return 2 * torch.randn(40, D, generator=torch.Generator().manual_seed(8)) + 0.5

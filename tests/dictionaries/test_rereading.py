"""A published threshold read as TopK: the same maps, the k largest of each row."""

import pytest
import torch

from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.rereading import as_topk
from lorascope.errors import InputError


@pytest.fixture
def gated():
    encoder = torch.tensor([[1.0, 2.0, 3.0, -1.0]])
    return JumpReluDictionary(
        encoder,
        torch.zeros(4),
        torch.tensor([[1.0], [10.0], [100.0], [1000.0]]),
        torch.tensor([0.5]),
        torch.full((4,), 2.5),
        subtract_bias=False,
    )


def test_by_hand(gated):
    x = torch.tensor([[1.0], [2.0], [-1.0]])
    # 1, 2, 3, −1 against the threshold 2.5: only the third; of the two largest: the second too.
    assert gated.encode(x)[0].tolist() == [0, 0, 3, 0]
    read = as_topk(gated, 2)
    assert read.encode(x).tolist() == [[0, 2, 3, 0], [0, 4, 6, 0], [0, 0, 0, 1]]
    assert read(x)[0].item() == 2 * 10 + 3 * 100 + 0.5
    assert (read.encode(x) > 0).sum(1).max() <= 2


def test_refused(gated):
    with pytest.raises(InputError, match="has 4 latents and is to be read as TopK of 5"):
        as_topk(gated, 5)
    gated.architecture = "gated"
    with pytest.raises(InputError, match="mine: a gated dictionary cannot be read as TopK"):
        as_topk(gated, 2, "mine")

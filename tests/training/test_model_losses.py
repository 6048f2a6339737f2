"""The response loss by hand, on logits that tell an off-by-one apart."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lorascope.activations.tokens import TokenBatch
from lorascope.training.model_losses import response_token_losses

CPU = torch.device("cpu")


class Fixed(nn.Module):
    """A model whose logits are what they are, and which keeps what it was called with."""

    def __init__(self, probabilities):
        super().__init__()
        self.logits = torch.tensor(probabilities).log()
        self.called_with = {}

    def forward(self, **arguments):
        self.called_with = arguments
        return SimpleNamespace(logits=self.logits)


def batch(ids, attended, response):
    shape = torch.tensor(ids).shape
    return TokenBatch(
        torch.tensor(ids),
        torch.tensor(attended, dtype=torch.bool),
        torch.zeros(shape, dtype=torch.bool),
        torch.tensor(response, dtype=torch.bool),
        torch.arange(shape[0]),
    )


def test_each_token_is_scored_by_the_position_before_it():
    model = Fixed(
        [
            [[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4]],
            [[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]],
        ]
    )
    given = batch(
        ids=[[2, 1, 0, 1], [1, 0, 2, 2]],
        attended=[[1, 1, 1, 1], [1, 1, 0, 0]],
        response=[[0, 0, 1, 1], [0, 1, 0, 0]],
    )
    losses, rows = response_token_losses(model, given, CPU)
    # token 0 at place 2 by place 1: 0.5; token 1 at place 3 by place 2: 0.9; second row: 0.6
    assert losses.tolist() == pytest.approx([-math.log(0.5), -math.log(0.9), -math.log(0.6)])
    assert rows.tolist() == [0, 0, 1]
    assert torch.equal(model.called_with["input_ids"], given.ids)
    assert model.called_with["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_a_response_that_opens_a_window_is_not_scored_at_its_first_token():
    model = Fixed([[[0.1, 0.9], [0.25, 0.75]]])
    losses, rows = response_token_losses(model, batch([[0, 1]], [[1, 1]], [[1, 1]]), CPU)
    assert losses.tolist() == pytest.approx([-math.log(0.9)])
    assert rows.tolist() == [0]


def test_low_precision_logits_are_scored_in_float32():
    model = Fixed([[[0.1, 0.9], [0.5, 0.5]]])
    model.logits = model.logits.bfloat16()
    losses, _ = response_token_losses(model, batch([[0, 1]], [[1, 1]], [[0, 1]]), CPU)
    assert losses.dtype == torch.float32

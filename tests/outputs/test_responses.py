"""The response loss by hand, on logits that tell an off-by-one apart."""

import math
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lorascope.activations.tokens import TokenBatch
from lorascope.outputs.responses import response_token_losses

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


def test_a_batch_without_responses_gives_nothing():
    model = Fixed([[[0.1, 0.9], [0.5, 0.5]]])
    losses, rows = response_token_losses(model, batch([[0, 1]], [[1, 1]], [[1, 0]]), CPU)
    assert (len(losses), len(rows)) == (0, 0)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_computing_fewer_logits_changes_nothing(tiny_model, architecture, wrapped):
    """Against every logit, window by window, with transformers' own shifted loss."""
    model = tiny_model(architecture)
    if wrapped:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear")).eval()
    given = batch(
        ids=[[5, 9, 7, 3, 8, 6], [4, 40, 30, 20, 1, 1], [9, 9, 2, 7, 4, 4]],
        attended=[[1] * 6, [1, 1, 1, 1, 0, 0], [1] * 6],
        response=[[0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0], [0] * 6],
    )
    shapes = []
    model.get_output_embeddings().register_forward_hook(
        lambda _module, _inputs, output: shapes.append(output.shape[1])
    )
    with torch.no_grad():
        losses, rows = response_token_losses(model, given, CPU)
        # places 2 to 4 are predicted by places 1 to 3
        assert shapes == [3]
        expected = []
        for row, places in enumerate([(2, 4), (3,), ()]):
            for place in places:
                labels = torch.full((1, 6), -100)
                labels[0, place] = given.ids[row, place]
                output = model(input_ids=given.ids[row : row + 1], labels=labels)
                expected.append(output.loss)
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert rows.tolist() == [0, 0, 1]

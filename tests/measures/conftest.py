"""A dictionary whose latents can be read off the rows."""

import pytest
import torch

from lorascope.dictionaries.relu import ReluDictionary


@pytest.fixture(scope="session")
def threshold_dictionary():
    """`threshold_dictionary(d, bias)`: latent i fires on x_i − bias_i > 1 and writes the excess."""

    def build(d, bias=None):
        centre = torch.zeros(d) if bias is None else torch.tensor(bias)
        return ReluDictionary(torch.eye(d), torch.full((d,), -1.0), torch.eye(d), centre)

    return build

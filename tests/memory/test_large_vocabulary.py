"""What a model with a large vocabulary takes beside its weights, by counting what is alive."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from held import Held

from lorascope.activations import noise_floor as noise
from lorascope.activations.tokens import TokenBatch, Window
from lorascope.models import finer_arithmetic, sanity_checks
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import Site
from lorascope.outputs import responses as model_losses
from lorascope.outputs import scoring as outputs

VOCABULARY, TOKENS, WINDOWS = 16384, 64, 8
# Bytes of the logits of all positions of the batch: 33 MB.
LOGITS = WINDOWS * TOKENS * VOCABULARY * 4


@pytest.fixture(scope="module")
def wide(tiny_model, tiny_checkpoint):
    """A tiny model whose vocabulary is nearly all of it."""
    from lorascope.models.load import read_tokenizer

    base = tiny_model("llama", vocab_size=VOCABULARY)
    return AdaptedModel(base, read_tokenizer(str(tiny_checkpoint("llama"))), "wide")


@pytest.fixture(scope="module")
def ids():
    return torch.arange(WINDOWS * TOKENS).reshape(WINDOWS, TOKENS) % VOCABULARY


def peak(run):
    """Bytes that are alive at most while `run` runs, beside what was before."""
    with Held() as held:
        found = run()
    return held.most, found


def test_what_is_counted_is_what_is_alive():
    def run():
        first = torch.zeros(1000)
        second = first + 1
        del first
        return second.view(10, 100) + 1

    most, _ = peak(run)
    # The first is gone when the last is made.
    assert most == 2 * 4000


def test_trying_adapters_takes_the_logits_that_fit(wide, ids, monkeypatch):
    monkeypatch.setattr(sanity_checks, "_LOGITS", 2 * TOKENS * VOCABULARY)
    whole, mask = sanity_checks._as_fits(wide, ids, torch.ones_like(ids))
    assert whole.shape == mask.shape == (2, TOKENS)
    most, (_, logits) = peak(lambda: sanity_checks._stream_and_logits(wide, "base", whole, mask))
    assert len(logits) == 2 * TOKENS
    assert most < 3 * LOGITS / 4
    # A vocabulary of the usual size is tried on all of the batch.
    monkeypatch.setattr(sanity_checks, "_LOGITS", 2**25)
    assert sanity_checks._as_fits(wide, ids, ids)[0].shape == ids.shape


def test_the_noise_floor_holds_no_finer_copy_of_the_model(wide, monkeypatch):
    monkeypatch.setattr(finer_arithmetic, "_PART", 2**15)
    found = [Window([3, 4, 5, 6], [False] * 4, i) for i in range(2)]
    most, floor = peak(lambda: noise.noise_floor(wide, found, [Site(1)]))
    assert most < wide.n_parameters * 8 / 4
    assert 0 < floor["layers.1"] < 1e-3


def test_the_output_floor_holds_no_finer_copy_of_the_output_matrix(wide, monkeypatch):
    monkeypatch.setattr(finer_arithmetic, "_PART", 2**15)
    ids = torch.tensor([[3, 4, 5, 6]])
    head = wide.module.lm_head
    stream = torch.randn(1, 4, head.in_features, dtype=torch.float64)

    def run():
        with finer_arithmetic.in_finer_arithmetic(wide.module, torch.float64):
            return wide.module.lm_head(stream)

    most, found = peak(run)
    assert found.shape == (*ids.shape, VOCABULARY)
    assert most < found.numel() * 8 + head.weight.numel() * 8 / 4


def test_divergence_in_parts_is_the_same_number_and_takes_less(monkeypatch):
    random = torch.Generator().manual_seed(0)
    log_p, log_q = (torch.randn(60, VOCABULARY, generator=random).log_softmax(-1) for _ in range(2))
    monkeypatch.setattr(outputs, "_AT_ONCE", {"cpu": 2**40})
    most, whole = peak(lambda: outputs.divergence(log_p, log_q))
    several = outputs.divergence(log_p, torch.stack([log_q, log_p]))
    monkeypatch.setattr(outputs, "_AT_ONCE", {"cpu": 8 * VOCABULARY})
    less, parts = peak(lambda: outputs.divergence(log_p, log_q))
    assert torch.equal(whole, parts)
    assert torch.equal(several, outputs.divergence(log_p, torch.stack([log_q, log_p])))
    assert not several[1].any()
    assert several[0].min() > 0
    size = log_p.numel() * 4
    assert most > 2 * size
    assert less < size


@torch.no_grad()
def test_response_losses_in_parts_are_the_same_and_take_less(wide, ids, monkeypatch):
    response = torch.ones_like(ids, dtype=torch.bool)
    response[:, :5] = False
    nothing = torch.zeros_like(response)
    batch = TokenBatch(ids, ~nothing, nothing, response, torch.arange(WINDOWS))
    device = torch.device("cpu")
    monkeypatch.setattr(model_losses, "_AT_ONCE", 2**40)
    most, whole = peak(lambda: model_losses.response_tokens(wide.module, batch, device))
    monkeypatch.setattr(model_losses, "_AT_ONCE", 16 * VOCABULARY)
    less, parts = peak(lambda: model_losses.response_tokens(wide.module, batch, device))
    for ours, theirs in zip(parts, whole, strict=True):
        assert torch.equal(ours, theirs)
    assert most > 2.5 * LOGITS * 0.9
    assert less < 1.5 * LOGITS

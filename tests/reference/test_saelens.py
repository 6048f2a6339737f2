"""Dictionaries pass between this package and SAELens itself with equal latents both ways."""

import pytest
import torch

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.training.architectures.relu import ReLU
from lorascope.training.dictionaries import Fitting, fit

D, N = 16, 48


@pytest.fixture(scope="module")
def sae_lens():
    return pytest.importorskip("sae_lens", reason="needs the saelens extra")


@pytest.fixture(scope="module")
def stream():
    """Raw activations with norms near 50, off centre."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(2000, D, generator=random) + 0.5 * torch.randn(D, generator=random)
    rows = rows * (50 / rows.norm(dim=1).mean())
    assert rows.norm(dim=1).mean() == pytest.approx(50)
    return rows


@pytest.fixture(scope="module")
def fitted(stream):
    """A dictionary of this package's own training, so with a scale that had to be folded in."""
    fitting = Fitting(epochs=20, batch=100, products="float32")
    learned = fit(ReLU(n_latents=N, l1=0.1), stream, fitting=fitting)
    assert learned.card.scale == pytest.approx(50)
    assert (learned(stream) - stream).norm() < 0.5 * stream.norm()
    return learned


def jump(fitted):
    thresholds = torch.linspace(0.5, 20, N)
    parts = dict(fitted.named_buffers())
    return JumpReluDictionary(**parts, threshold=thresholds)


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "relu without bias"])
def test_saelens_opens_what_is_written_here(sae_lens, stream, fitted, tmp_path, architecture):
    if architecture == "relu":
        ours = fitted
    elif architecture == "jumprelu":
        ours = jump(fitted)
    else:
        ours = ReluDictionary(**dict(fitted.named_buffers()), subtract_bias=False)
    ours.card = Card(site="layers.5", model="google/gemma-2-2b", target="delta", scale=50.0)
    save(ours, tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    assert theirs.cfg.architecture() == ("jumprelu" if "jump" in architecture else "standard")
    assert theirs.cfg.metadata.hook_name == "blocks.5.hook_resid_post"
    latents = theirs.encode(stream)
    density = (latents > 0).float().mean()
    assert 0.01 < density < 0.9
    torch.testing.assert_close(ours.encode(stream), latents, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(ours(stream), theirs(stream), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(ours.decode(latents), theirs.decode(latents), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_what_saelens_writes_is_opened_here(
    sae_lens, stream, tmp_path, architecture, apply_b_dec_to_input
):
    kinds = {
        "standard": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig),
        "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig),
    }
    kind, config = kinds[architecture]
    theirs = kind(config(d_in=D, d_sae=N, apply_b_dec_to_input=apply_b_dec_to_input))
    random = torch.Generator().manual_seed(1)
    for parameter in theirs.parameters():
        parameter.data = torch.rand(parameter.shape, generator=random) - 0.3
    theirs.save_model(tmp_path)
    ours = open_dictionary(tmp_path)
    with torch.no_grad():
        latents = theirs.encode(stream)
        assert 0.05 < (latents > 0).float().mean() < 0.95
        torch.testing.assert_close(ours.encode(stream), latents, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(ours(stream), theirs(stream), rtol=1e-5, atol=1e-3)

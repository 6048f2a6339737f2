"""A latent adapter as a variant of the model, like any other adapter."""

import shutil

import pytest
import torch

import lorascope
from lorascope.errors import InputError
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.models import adapted
from lorascope.models.adapter_files import weights_digest
from lorascope.models.interventions import record
from lorascope.models.sanity_checks import verify_live
from lorascope.models.sites import Site
from lorascope.models.updates import lora_updates, updated_modules


@pytest.fixture
def saved(save_latent_adapter, tmp_path):
    """A latent adapter's folder; its dictionary lies beside it."""
    return save_latent_adapter(tmp_path)


IDS = torch.tensor([[0, 5, 9, 13, 21], [0, 30, 31, 32, 33]])


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(IDS).logits


def test_it_is_switched_like_any_other(saved, tiny_checkpoint, save_adapter, tmp_path):
    place = str(tiny_checkpoint("llama"))
    lora = save_adapter(tmp_path / "lora", base_model_name_or_path=place)
    model = lorascope.load(place, {"latent": saved, "plain": lora}, device="cpu", force=True)
    alone = lorascope.load(place, {"latent": saved}, device="cpu")
    base = logits(model, "base")
    assert model.adapters == ("latent", "plain")
    assert (logits(model, "latent") - base).abs().max() > 1e-2
    assert torch.equal(logits(model, "latent"), logits(alone, "latent"))
    assert not torch.equal(logits(model, "plain"), logits(model, "latent"))
    assert torch.equal(logits(model, "base"), base)
    with model.variant("latent"), model.variant("base") as inner, torch.no_grad():
        assert torch.equal(inner(IDS).logits, base)
    assert not any(part._forward_hooks for part in model.module.modules())
    assert verify_live(model, "latent", IDS).delta_norm > 0.1


def test_its_delta_is_what_it_writes(saved, tiny_checkpoint):
    model = lorascope.load(str(tiny_checkpoint("llama")), {"latent": saved}, device="cpu")
    sites = [Site(0), Site(1), Site(2)]
    mask = torch.ones_like(IDS)
    base, own = (record(model, variant, sites, IDS, mask).streams for variant in ("base", "latent"))
    assert torch.equal(own[Site(0)], base[Site(0)])
    adapter = LatentAdapter.from_pretrained(saved)
    expected = adapter(base[Site(1)])
    expected[:, 0] = base[Site(1)][:, 0]  # the special token keeps its stream
    torch.testing.assert_close(own[Site(1)], expected)
    resumed = record(model, "latent", sites, IDS, mask)
    for site in sites:
        again = resumed.resume(site, resumed.streams[site])
        assert torch.equal(again, resumed.logits)
    assert not torch.equal(own[Site(2)], base[Site(2)])


def test_it_has_no_weights_to_look_at(saved, tiny_checkpoint):
    model = lorascope.load(str(tiny_checkpoint("llama")), {"latent": saved}, device="cpu")
    info = model.info("latent")
    assert (info.rank, info.base, info.n_parameters) == (2, str(tiny_checkpoint("llama")), 42)
    assert updated_modules(model, "latent") == []
    with pytest.raises(InputError, match="is a latent adapter and has no LoRA weights"):
        lora_updates(model, "latent")


def test_what_identifies_it_is_its_weights(saved, tmp_path):
    before = weights_digest("x", str(saved))
    shutil.copytree(saved, tmp_path / "copy")
    assert weights_digest("x", str(tmp_path / "copy")) == before
    made = LatentAdapter.from_pretrained(saved)
    with torch.no_grad():
        made.scale.mul_(2)
    made.save_pretrained(tmp_path / "copy")
    assert weights_digest("x", str(tmp_path / "copy")) != before


def test_refusals(saved, tiny_checkpoint, tmp_path):
    place = str(tiny_checkpoint("llama"))
    with pytest.raises(InputError, match=r"load it with lorascope\.load"):
        adapted.load(place, {"latent": saved}, device="cpu")
    with pytest.raises(InputError, match=r'was made for ".*tiny-llama", the model given is'):
        lorascope.load(str(tiny_checkpoint("qwen2")), {"latent": saved}, device="cpu")
    shutil.rmtree(saved.parent / "dictionary")
    with pytest.raises(InputError, match="no such folder"):
        lorascope.load(place, {"latent": saved}, device="cpu")

"""The noise floor: what arithmetic alone changes, far below what an adapter changes."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig

from lorascope.activations import noise_floor as gates
from lorascope.activations.collect import collect
from lorascope.activations.noise_floor import noise_floor
from lorascope.activations.settings import Capture
from lorascope.activations.shards import Shards
from lorascope.activations.tokens import Window, pad, windows
from lorascope.models.adapted import load
from lorascope.models.hooks import run_until
from lorascope.models.sites import Site, resolve_sites

SITES = resolve_sites(3, ["layers.0", "layers.2"])


def mean_delta_norm(model, found, folder):
    collect(model, found, SITES, folder, Capture(store="float32"), "identity")
    shards = Shards.open(folder)
    return {site.name: shards.load(site.name, "a").norm(dim=1).mean().item() for site in SITES}


def test_the_floor_of_bfloat16_is_its_distance_from_float32(
    adapted_model, tiny_model, documents, tmp_path
):
    model = adapted_model(dtype="bfloat16")
    found = windows(documents[:10], model.tokenizer, 32)
    floor = noise_floor(model, found, SITES)
    batch = pad(found, model.tokenizer, padding=1)
    rounded = tiny_model("llama").bfloat16()
    low = run_until(rounded, SITES, batch.ids, batch.attended.long())
    # the same rounded weights, so that only arithmetic differs
    exact = run_until(rounded.float(), SITES, batch.ids, batch.attended.long())
    delta = mean_delta_norm(model, found, tmp_path)
    for site in SITES:
        difference = (low[site].float() - exact[site])[batch.kept].norm(dim=1).mean().item()
        assert floor[site.name] == pytest.approx(difference, rel=0.02)
        assert 0 < floor[site.name] < 0.1 * delta[site.name]


def test_float32_has_a_lower_floor_that_needs_no_copy(adapted_model, documents, tmp_path):
    model = adapted_model(dtype="float32")
    found = windows(documents, model.tokenizer, 32)
    floor = noise_floor(model, found, SITES)
    delta = mean_delta_norm(model, found, tmp_path)
    assert all(floor[site.name] < 1e-5 * delta[site.name] for site in SITES)


def test_the_adapters_play_no_part(adapted_model, documents):
    model = adapted_model(dtype="bfloat16")
    found = windows(documents, model.tokenizer, 32)
    before = noise_floor(model, found, SITES)
    with model.variant("a"):
        assert noise_floor(model, found, SITES) == before
    assert model.current == "base"


def experts(folder, tokenizer):
    """A tiny mixture of experts, whose kernels know no float64."""
    torch.manual_seed(0)
    config = MixtralConfig(
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load(str(folder), device="cpu")


def test_kernels_that_lack_the_finer_type(tiny_checkpoint, tmp_path, monkeypatch):
    model = experts(tmp_path / "m", AutoTokenizer.from_pretrained(tiny_checkpoint("llama")))
    ids = torch.arange(40).reshape(4, 10) + 3
    found = [Window(row, [False] * 10, i) for i, row in enumerate(ids.tolist())]
    with pytest.raises(RuntimeError):
        copy.deepcopy(model.module).double()(input_ids=ids)
    before = model.module.config._experts_implementation
    floor = noise_floor(model, found, [Site(1)])["layers.1"]
    # The copy's experts were written out, the model's are what they were.
    assert model.module.config._experts_implementation == before
    exact = copy.deepcopy(model.module).double()
    exact.set_experts_implementation("eager")
    batch = pad(found, model.tokenizer, padding=1)
    streams = [
        run_until(module, [Site(1)], batch.ids, batch.attended.long())[Site(1)].float()
        for module in (model.module, exact)
    ]
    apart = (streams[0] - streams[1])[batch.kept].norm(dim=-1).mean().item()
    assert apart > 0
    assert floor >= apart * 0.99
    # Where no way leads to a finer type, what batching changes is the floor.

    def lacks(*_arguments):
        raise RuntimeError("expected Float")

    monkeypatch.setattr(gates, "run_until", lacks)
    assert 0 <= noise_floor(model, found, [Site(1)])["layers.1"] <= floor

"""The noise floor: what arithmetic alone changes, far below what an adapter changes."""

import pytest

from lorascope.activations.collect import Capture, collect
from lorascope.activations.gates import noise_floor
from lorascope.activations.shards import Shards
from lorascope.activations.tokens import pad, windows
from lorascope.models.hooks import run_until
from lorascope.models.sites import resolve_sites

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
    with model.face("a"):
        assert noise_floor(model, found, SITES) == before
    assert model.current == "base"

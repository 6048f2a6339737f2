"""Directions written into the stream, by hand and with a dictionary that has them or has not."""

import math
from dataclasses import replace

import pytest
import torch

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.measures.alignment import NullSettings
from lorascope.measures.definitions import declared
from lorascope.measures.null_draws import beside_draws
from lorascope.measures.written_directions import written, written_view
from lorascope.models.adapted import load
from lorascope.models.null_adapters import add_null_adapters
from lorascope.models.updates import stream_gain
from lorascope.randomness import generator
from lorascope.results import ADAPTER, Key
from lorascope.results.labels import ALL_MODULES

D = 32
NULLS = NullSettings(repeats=20)
PLACE = Key("a", 4, "layers.1", seed=0, dictionary="base")


@pytest.fixture(scope="module")
def build(tiny_checkpoint, save_adapter, tmp_path_factory):
    """`build(architecture, factors)`: a model whose adapter "a" has these (B, A) by module."""

    def made(architecture="llama", factors=None, **fields):
        folder = save_adapter(tmp_path_factory.mktemp("a") / "a", architecture, **fields)
        model = load(str(tiny_checkpoint(architecture)), {"a": str(folder)}, device="cpu")
        with model.variant("base") as module:
            for path, (B, A) in (factors or {}).items():
                layer, name = module.get_submodule(path), model.peft_name("a")
                layer.lora_B[name].weight.data = B
                layer.lora_A[name].weight.data = A
        return model

    return made


def dictionary(directions):
    n, d = directions.shape
    return ReluDictionary(directions.T, torch.zeros(n), directions, torch.zeros(d))


def pick(view, setting):
    (found,) = [e for e in view.estimates if e.key.module == setting]
    return found


def axes(*pairs):
    """[D, r]: column i has the given {row: entry}."""
    columns = torch.zeros(D, len(pairs))
    for i, entries in enumerate(pairs):
        for row, value in entries.items():
            columns[row, i] = value
    return columns


FIELDS = {"target_modules": ["o_proj", "up_proj"], "lora_alpha": 4, "r": 2}


def test_cosines_by_hand(build):
    # σ = 6 towards (3, 4)/5 of dimensions 0 and 1, σ = 2 towards dimension 5; scale alpha / r = 2
    B, A = axes({0: 3.0, 1: 4.0}, {5: 1.0}), torch.zeros(2, D)
    A[0, 7], A[1, 9] = 0.6, 1.0
    paths = [f"model.layers.{i}.self_attn.o_proj" for i in range(3)]
    model = build(factors={paths[1]: (B, A), paths[0]: (torch.zeros(D, 2), A)}, **FIELDS)
    # Latent 0 points the other way; nothing has dimension 5 but half of latent 2.
    rows = torch.zeros(3, D)
    rows[0, 0], rows[1, 1], rows[2, 5], rows[2, 20] = -1.0, 0.5, 1.0, math.sqrt(3)
    view = written_view(model, "a", dictionary(rows), PLACE, NULLS)
    found = pick(view, "layers.1.self_attn.o_proj")
    assert found.value == pytest.approx((36 * 0.8 + 4 * 0.5) / 40)
    assert found.key == Key("a", 4, "layers.1", 0, "base", module="layers.1.self_attn.o_proj")
    table = view.directions[view.directions.module == "layers.1.self_attn.o_proj"]
    assert table["size"].tolist() == pytest.approx([6.0, 2.0])
    assert table.share.tolist() == pytest.approx([0.9, 0.1])
    assert table.latent.tolist() == [1, 2]
    assert table.cosine.tolist() == pytest.approx([0.8, 0.5])
    # Block 0 writes nothing, block 2 comes after the site, up_proj does not write.
    assert {e.key.module for e in view.estimates} == {"layers.1.self_attn.o_proj", ALL_MODULES}
    everywhere = written(model, "a")
    assert [w.module for w in everywhere] == [f"layers.{i}.self_attn.o_proj" for i in (1, 2)]


def test_a_norm_on_the_way_turns_what_is_written(build):
    path = "model.layers.0.mlp.down_proj"
    model = build("gemma2", target_modules=["down_proj"], r=4)
    gain = stream_gain(model, path)
    assert gain.std() > 0.05
    (first, *_) = written(model, "a", "layers.0")
    with model.variant("base") as module:
        layer, name = module.get_submodule(path), model.peft_name("a")
        matrix = layer.get_delta_weight(name).detach()
    U, S, _ = torch.linalg.svd(gain[:, None] * matrix)
    assert torch.allclose(first.sizes.float(), S[:4], rtol=1e-4)
    assert torch.allclose((first.directions @ U[:, :4]).abs(), torch.eye(4), atol=1e-3)
    plain = torch.linalg.svd(matrix).U[:, :4]
    assert (first.directions @ plain).abs().diagonal().min() < 0.999


def test_planted_directions_are_found_and_others_are_not(build):
    model = build(target_modules=["o_proj", "down_proj"], r=4)
    others = torch.randn(50, D, generator=generator(0, "others"))
    nothing = written_view(model, "a", dictionary(others), PLACE, NULLS)
    (modules := [w.module for w in written(model, "a", "layers.1")]).append(ALL_MODULES)
    assert [e.key.module for e in nothing.estimates] == modules
    assert len(modules) == 5
    assert pick(nothing, ALL_MODULES).verdict in ("equal", "not settled")
    there = torch.cat([others, -torch.cat([w.directions for w in written(model, "a", "layers.1")])])
    planted = written_view(model, "a", dictionary(there), PLACE, NULLS)
    for setting in modules:
        assert pick(planted, setting).value == pytest.approx(1.0, abs=1e-4)
        assert pick(planted, setting).verdict == "above"
        assert pick(planted, setting).nulls[0].name == "isotropic"
    assert planted.directions.latent.tolist() == list(range(50, 66))
    assert (planted.directions.cosine > planted.directions.chance_high).all()


def test_random_directions_stay_inside_the_band(build):
    model = build(target_modules=["o_proj", "down_proj"], r=4)
    covariance = torch.diag(torch.linspace(0.01, 4, D).square())
    outside = {"isotropic": 0, "covariance-matched": 0}
    for repeat in range(40):
        random = generator(repeat, "dictionary")
        rows = torch.randn(60, D, generator=random)
        nulls = NullSettings(covariance, repeats=20, seed=repeat)
        view = written_view(model, "a", dictionary(rows), PLACE, nulls)
        assert [c.name for c in view.estimates[0].nulls] == ["covariance-matched", "isotropic"]
        for chance in view.estimates[0].nulls:
            outside[chance.name] += not chance.low <= view.estimates[0].value <= chance.high
    assert outside["isotropic"] <= 6, outside


def test_covariance_null_knows_where_the_stream_lies(build):
    # A dictionary and writes that share one plane: above isotropic chance, not above matched.
    plane = torch.zeros(D)
    plane[:2] = 1.0
    random = generator(0, "plane")
    rows = torch.randn(12, D, generator=random) * plane
    B = torch.randn(D, 2, generator=random) * plane[:, None]
    factors = {
        f"model.layers.{i}.self_attn.o_proj": (B, torch.randn(2, D, generator=random))
        for i in range(3)
    }
    model = build(factors=factors, target_modules=["o_proj"], r=2)
    nulls = NullSettings(torch.diag(plane + 1e-8), None, 20, 0)
    view = written_view(model, "a", dictionary(rows), PLACE, nulls)
    estimate = view.estimates[0]
    matched, isotropic = estimate.nulls
    assert estimate.against(isotropic) == "above"
    assert estimate.against(matched) in ("equal", "not settled")
    assert matched.level > isotropic.level + 0.3


def test_embeddings_write_and_readers_do_not(build):
    model = build(target_modules=["embed_tokens", "q_proj", "gate_proj"], r=2)
    view = written_view(model, "a", dictionary(torch.eye(D)), PLACE, NULLS)
    assert [e.key.module for e in view.estimates] == ["model.embed_tokens", ALL_MODULES]
    model = build(target_modules=["q_proj"], r=2)
    view = written_view(model, "a", dictionary(torch.eye(D)), PLACE, NULLS)
    assert not view.estimates
    assert view.directions.empty


def test_refusals(build):
    model = build(target_modules=["o_proj"], r=2)
    with pytest.raises(InputError, match="16 wide, the model's stream 32"):
        written_view(model, "a", dictionary(torch.eye(16)), PLACE, NULLS)
    with pytest.raises(InputError, match="not the output of a block"):
        written(model, "a", "layer one")


def beside_null_adapters(model, own, place=PLACE, draws=5):
    """The adapter's number of all modules with its null adapters' beside it."""
    nulls = add_null_adapters(model, "a", draws, seed=0)
    views = [written_view(model, "a", own, place, NULLS)]
    for draw, null in enumerate(nulls):
        drawn = replace(place, null=ADAPTER, draw=draw)
        views.append(written_view(model, null, own, drawn, NullSettings(repeats=0)))
        assert not any(estimate.nulls for estimate in views[-1].estimates)
    every = [e for view in views for e in view.estimates if e.key.module == ALL_MODULES]
    assert len(every) == draws + 1
    return declared(beside_draws(every)[0])


def test_planted_directions_leave_null_adapters_and_random_ones_do_not(build):
    others = torch.randn(50, D, generator=generator(0, "others"))
    fields = {"target_modules": ["o_proj", "down_proj"], "r": 4}
    model = build(**fields)
    nothing = beside_null_adapters(model, dictionary(others))
    assert [null.name for null in nothing.rivals] == [ADAPTER]
    assert nothing.verdict in ("equal", "not settled")
    there = torch.cat([w.directions for w in written(model, "a", "layers.1")])
    planted = beside_null_adapters(build(**fields), dictionary(torch.cat([others, -there])))
    assert planted.verdict == "above"
    assert planted.headline.name == ADAPTER
    # The dictionary is the same for both: what was planted is the adapter's alone.
    assert planted.headline.high < 0.8 < 0.999 < planted.value


def test_a_norm_that_turns_every_update_alike_is_no_finding(build):
    """Isotropic directions do not go through the norm; null adapters' do."""
    model = build("gemma2", target_modules=["o_proj", "down_proj"], r=4)
    kept = torch.full((D,), -1 + 1e-3)
    kept[:3] = 4.0
    with model.variant("base") as module:
        for block in module.model.layers:
            for norm in (block.post_attention_layernorm, block.post_feedforward_layernorm):
                norm.weight.data = kept.clone()
    rows = torch.randn(12, D, generator=generator(0, "kept")) * (kept > 0)
    found = beside_null_adapters(model, dictionary(rows))
    isotropic = next(null for null in found.nulls if null.name == "isotropic")
    assert found.against(isotropic) == "above"
    assert found.headline.name == ADAPTER
    assert found.verdict != "above"
    assert found.headline.level > isotropic.high + 0.2


def test_a_null_adapter_of_a_full_fine_tune_writes_what_it_draws(
    tiny_checkpoint, tiny_model, tmp_path
):
    path = "model.layers.0.self_attn.o_proj"
    tuned = tiny_model("llama")
    weight = tuned.get_submodule(path).weight
    weight.data += torch.outer(torch.randn(D, generator=generator(0, "u")), torch.ones(D)) / 9
    tuned.save_pretrained(tmp_path)
    for file in tiny_checkpoint("llama").glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = load(str(tiny_checkpoint("llama")), {"a": str(tmp_path)}, device="cpu")
    [null] = add_null_adapters(model, "a", 1, seed=0)
    with model.variant(null) as module:
        drawn = module.get_submodule(path).weight.detach() - model.base_parameters[f"{path}.weight"]
    U, S, _ = torch.linalg.svd(drawn.double())
    [found] = written(model, null)
    [own] = written(model, "a")
    assert found.sizes[:1].tolist() == pytest.approx(S[:1].tolist(), rel=1e-4)
    assert found.sizes[:1].tolist() == pytest.approx(own.sizes[:1].tolist(), rel=1e-4)
    assert (found.directions[0].double() @ U[:, 0]).abs() > 0.999
    assert (found.directions[0] @ own.directions[0]).abs() < 0.9
    assert model.current == "base"

"""Null adapters are brought to their adapter's delta norm, whatever kind they are."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lorascope import load as load_any
from lorascope.activations import matching
from lorascope.activations.collect import collect
from lorascope.activations.matching import Match, match_delta_norms
from lorascope.activations.settings import Capture
from lorascope.activations.shards import Shards
from lorascope.activations.text import read_documents
from lorascope.activations.tokens import windows
from lorascope.errors import InputError, NoNullAdapter
from lorascope.models.adapted import load
from lorascope.models.load import load_base
from lorascope.models.null_adapters import add_null_adapters, rescale_null_adapter
from lorascope.models.sites import resolve_sites

SITES = resolve_sites(3, ["layers.1", "layers.2"])
FLOAT32 = Capture(context=16, store="float32", outlier_multiple=3)
CASES = {
    "lora": ("llama", {"target_modules": ["q_proj", "down_proj"]}),
    "dora": ("llama", {"target_modules": ["v_proj", "down_proj"], "use_dora": True}),
    "biases": ("gpt2", {"target_modules": ["c_attn"], "bias": "all", "lora_bias": True}),
    "norms": ("llama", {"target_modules": ["v_proj"], "modules_to_save": ["input_layernorm"]}),
    "full": ("llama", None),
}


@pytest.fixture
def opened(tiny_model, tiny_checkpoint, save_adapter, tmp_path):
    """`opened(case)`: a tiny model with the adapter "a" of a case of `CASES`."""

    def build(case, **options):
        architecture, fields = CASES[case]
        place = tiny_checkpoint(architecture)
        folder = tmp_path / "a"
        if fields is not None:
            if not folder.exists():
                save_adapter(folder, architecture, **fields)
        else:
            tuned, random = tiny_model(architecture), torch.Generator().manual_seed(3)
            for parameter in tuned.parameters():
                parameter.data += 0.03 * torch.randn(parameter.shape, generator=random)
            tuned.save_pretrained(folder)
            for file in place.glob("tokenizer*"):
                (folder / file.name).write_bytes(file.read_bytes())
        return load(str(place), {"a": str(folder)}, device="cpu", **options)

    return build


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=torch.arange(24).reshape(2, 12) + 3).logits


def captured_norms(model, found, folder):
    """{variant: {site: mean delta norm}}, as capture finds it."""
    collect(model, found, SITES, folder, FLOAT32, "identity")
    shards = Shards.open(folder)
    assert shards.manifest["outliers"] >= 0
    return {
        name: {site.name: float(shards.load(site.name, name).norm(dim=1).mean()) for site in SITES}
        for name in (*model.adapters, *model.null_adapters)
    }


@pytest.mark.parametrize("case", CASES)
def test_the_delta_is_as_large_as_the_adapters(opened, documents, tmp_path, case):
    model = opened(case)
    add_null_adapters(model, "a", 2, seed=3)
    for name in model.null_adapters:
        # from wherever the factor is
        rescale_null_adapter(model, name, 0.3)
    found = windows(documents, model.tokenizer, FLOAT32.context)
    before = {variant: logits(model, variant) for variant in ("base", "a")}
    matches = match_delta_norms(model, ["a"], found, SITES, FLOAT32)
    assert tuple(matches) == model.null_adapters
    norms = captured_norms(model, found, tmp_path / "rows")
    for name, match in matches.items():
        ratios = {site: norms[name][site] / norms["a"][site] for site in norms["a"]}
        assert match.ratios == pytest.approx(ratios, rel=1e-3)
        assert math.sqrt(math.prod(ratios.values())) == pytest.approx(1, abs=0.0201)
        assert match.reached
        assert model.info(name).factor == match.factor
    assert all(torch.equal(logits(model, variant), value) for variant, value in before.items())
    again = opened(case)
    add_null_adapters(again, "a", 2, seed=3)
    assert match_delta_norms(again, ["a"], found, SITES, FLOAT32) == matches
    for name in model.null_adapters:
        assert torch.equal(logits(again, name), logits(model, name))
        assert again.info(name) == model.info(name)


def test_outliers_and_special_tokens_do_not_count(opened, documents):
    """They do where the settings keep them, and then the adapter's norm is another."""
    model = opened("lora")
    found = windows(documents, model.tokenizer, 16)
    norms = [
        matching._KnownWindows(model, found, SITES, FLOAT32.model_copy(update=changes)).norms("a")
        for changes in ({}, {"keep_special": True}, {"outlier_multiple": 1.1})
    ]
    assert len({one["layers.2"] for one in norms}) == 3


def test_what_cannot_be_reached_is_said(opened, documents, monkeypatch):
    model = opened("lora")
    add_null_adapters(model, "a", 1, seed=0)
    found = windows(documents, model.tokenizer, 16)
    reached = match_delta_norms(model, ["a"], found, SITES, FLOAT32)["a~null0"]
    largest = 1 + (max(reached.factor, 1 / reached.factor) - 1) / 2
    monkeypatch.setattr(matching, "LARGEST", largest)
    match = match_delta_norms(model, ["a"], found, SITES, FLOAT32)["a~null0"]
    assert not match.reached
    assert max(match.factor, 1 / match.factor) == pytest.approx(largest, rel=1e-3)
    assert abs(math.log(match.ratio)) > math.log(1.02)
    assert model.info("a~null0").factor == match.factor


@pytest.mark.parametrize(
    ("curve", "wanted"),
    [
        (lambda factor: 0.05 * factor, 20),
        (lambda factor: 3 * factor**2.5, 0.6444),
        # flat, then steep
        (lambda factor: 0.5 + (factor / 40) ** 6, 35.64),
        # DoRA's magnitudes alone move the stream by 0.9 of the adapter's delta
        (lambda factor: math.hypot(0.9, 0.2 * factor), 2.179),
        (lambda factor: 2 * factor / (1 + factor), 1),
    ],
)
def test_the_search_finds_other_curves_too(monkeypatch, curve, wanted):
    """A factor f gives the ratio `curve(f)`; the ratio must come within 2 % of 1."""
    now = []
    monkeypatch.setattr(matching, "rescale_null_adapter", lambda model, name, f: now.append(f))

    class Texts:
        def norms(self, variant):
            return {"x": 3 * curve(now[-1]), "y": 5 * curve(now[-1])}

    match = matching._match(None, "null", Texts(), {"x": 3.0, "y": 5.0})
    assert match.reached
    assert match.factor == now[-1]
    assert match.factor == pytest.approx(wanted, rel=0.08)
    assert len(now) <= matching.PASSES + 1


def test_the_nearest_is_kept_where_weights_or_stream_end(monkeypatch):
    """Factors below 0.5 drown in the weights' dtype, the ratio there is 1.5 still."""
    now = [1.0]

    def rescale(model, name, factor):
        if factor < 0.5:
            raise NoNullAdapter("too small")
        now.append(factor)

    monkeypatch.setattr(matching, "rescale_null_adapter", rescale)

    class Drowned:
        def norms(self, variant):
            return {"x": 3 * now[-1]}

    match = matching._match(None, "null", Drowned(), {"x": 1.0})
    assert (match.factor, match.reached) == (now[-1], False)
    assert match.factor == pytest.approx(0.5, rel=0.02)
    assert match.ratio == pytest.approx(3 * match.factor)

    class Overflowing:
        def norms(self, variant):
            if now[-1] > 4:
                raise InputError("infinity at layers.1")
            return {"x": 0.1 * now[-1]}

    match = matching._match(None, "null", Overflowing(), {"x": 1.0})
    assert (match.factor, match.reached) == (now[-1], False)
    assert 3.5 < match.factor <= 4


def test_ratios_over_sites_are_averaged_geometrically():
    match = Match(2.0, {"layers.0": 4.0, "layers.1": 0.25, "layers.2": 1.5})
    assert match.ratio == pytest.approx(1.5 ** (1 / 3))
    assert not match.reached
    assert Match(1.0, {"layers.0": 1 / 1.019}).reached
    assert not Match(1.0, {"layers.0": 1 / 1.021}).reached


def test_what_there_is_nothing_to_match_on_is_refused(
    tiny_checkpoint, save_adapter, save_latent_adapter, documents, tmp_path
):
    deep = save_adapter(tmp_path / "b", target_modules=r".*layers\.2\..*q_proj")
    model = load(str(tiny_checkpoint("llama")), {"b": str(deep)}, device="cpu")
    found = windows(documents, model.tokenizer, 16)
    assert match_delta_norms(model, ["b"], found, SITES, FLOAT32) == {}
    add_null_adapters(model, "b", 1, seed=0)
    with pytest.raises(InputError, match=r"nothing at layers\.1"):
        match_delta_norms(model, ["b"], found, SITES, FLOAT32)
    with pytest.raises(InputError, match="no token"):
        match_delta_norms(model, ["b"], [], SITES, FLOAT32)
    with pytest.raises(InputError, match="no adapter named"):
        match_delta_norms(model, ["b~null0"], found, SITES, FLOAT32)
    hooked = load_any(
        str(tiny_checkpoint("llama")), {"latent": save_latent_adapter(tmp_path)}, device="cpu"
    )
    assert match_delta_norms(hooked, ["latent"], found, SITES, FLOAT32) == {}


def test_on_the_embedded_model(tmp_path):
    """At two sites, on its own texts, with the audit's defaults."""
    base, tokenizer = load_base("embedded", device="cpu")
    found = windows(read_documents("embedded")[:4], tokenizer, 64)[:6]
    seen = []
    hook = base.model.layers[1].input_layernorm.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.detach().mean((0, 1)))
    )
    base(input_ids=torch.tensor([found[0].ids]))
    hook.remove()
    (common,) = seen
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = LoraConfig(r=4, target_modules=["v_proj"], task_type="CAUSAL_LM")
        wrapped = get_peft_model(base, settings)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                random = torch.Generator().manual_seed(1)
                parameter.data += 0.02 * torch.randn(len(parameter), 1, generator=random)
            if "lora_A" in name:
                # what many tokens have in common, as training finds it
                parameter.data += 5 * common / common.norm()
    wrapped.save_pretrained(tmp_path / "a")
    model = load("embedded", {"a": str(tmp_path / "a")}, device="cpu", force=True)
    add_null_adapters(model, "a", 2, seed=0)
    sites = resolve_sites(model.n_blocks, ["layers.3", "layers.5"])
    before = logits(model, "base")
    texts = matching._KnownWindows(model, found, sites, Capture())
    assert texts.norms("a~null0")["layers.3"] < 0.8 * texts.norms("a")["layers.3"]
    matches = match_delta_norms(model, ["a"], found, sites, Capture())
    for match in matches.values():
        assert match.ratios.keys() == {"layers.3", "layers.5"}
        assert match.ratio == pytest.approx(1, abs=0.0201)
    assert torch.equal(logits(model, "base"), before)


def test_all_adapters_are_matched_beside_one_run_of_the_base(
    save_adapter, tiny_checkpoint, documents, tmp_path
):
    """The same factors and ratios, bit for bit, as when each has a base of its own."""
    folders = {
        name: str(save_adapter(tmp_path / name, seed=seed, target_modules=["q_proj", "up_proj"]))
        for name, seed in (("a", 1), ("b", 2), ("none", 3))
    }

    def drawn():
        model = load(str(tiny_checkpoint("llama")), folders, device="cpu")
        for name in ("a", "b"):
            add_null_adapters(model, name, 2, seed=0)
        return model, windows(documents[:6], model.tokenizer, 16)

    model, found = drawn()
    alone = {}
    for name in model.adapters:
        alone |= match_delta_norms(model, [name], found, SITES, FLOAT32)
    model, found = drawn()
    passes, told = [], []
    hook = model.module.register_forward_pre_hook(lambda *_: passes.append(model.current))
    together = match_delta_norms(model, model.adapters, found, SITES, FLOAT32, told.append)
    hook.remove()
    assert together == alone
    assert list(together) == list(model.null_adapters)
    assert len({match.factor for match in together.values()}) == 4
    assert passes.count("base") == passes.count("a") == passes.count("b") > 0
    assert "none" not in passes
    assert told == [1, 1, 1, 1]

"""One rule: what is looked at must change, or the adapter is refused with what it does instead."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3Config

import lorascope as ls
from lorascope.activations.settings import Capture
from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.sanity_checks import require_live, verify_all_live, verify_live
from lorascope.models.sites import Site

IDS = torch.arange(24).reshape(2, 12) + 3
TEXTS = ["w3 w4 w5 w6 w7 w8 w9 w10"] * 3


@pytest.fixture
def loaded(save_adapter, tiny_checkpoint, tmp_path):
    """`loaded(**LoraConfig fields)`: the tiny model with such an adapter, "a"."""

    def build(**fields):
        folder = save_adapter(tmp_path / "a", **fields)
        return load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")

    return build


def test_sites_before_the_first_adapted_block(loaded):
    model = loaded(target_modules=["q_proj"], layers_to_transform=[1, 2])
    verify_live(model, "a", IDS, sites=[Site(1), Site(2)])
    with pytest.raises(InputError, match=r"nothing at layers\.0: it acts from layers\.1 on"):
        verify_live(model, "a", IDS, sites=[Site(0), Site(2)])
    for sites in (["layers.0"], ["layers.0", "layers.2"]):
        with pytest.raises(InputError, match=r"choose layers\.1 or a deeper site"):
            ls.deltas(model, TEXTS, sites, "a", capture=Capture(context=16))
    # What it says helps.
    rows = ls.deltas(model, TEXTS, ["layers.1"], "a", capture=Capture(context=16))
    assert all(chunk.any(1).any() for chunk in rows["layers.1"].chunks())


def test_all_adapters_are_held_against_one_run_of_the_base(save_adapter, tiny_checkpoint, tmp_path):
    folders = {
        name: str(save_adapter(tmp_path / name, seed=seed, target_modules=["q_proj"]))
        for name, seed in (("a", 1), ("b", 2))
    }
    model = load(str(tiny_checkpoint("llama")), folders, device="cpu")
    mask = torch.ones_like(IDS)
    mask[1, 8:] = 0
    runs, told = [], []
    hook = model.module.register_forward_hook(lambda *_: runs.append(model.current))
    sites = [Site(0), Site(2)]
    found = verify_all_live(model, ["a", "b"], IDS, mask, sites, told.append)
    hook.remove()
    assert runs == ["base", "a", "b"]
    assert told == [1, 1]
    # Each by itself, and from the logits that the variants compute.
    assert found == [verify_live(model, name, IDS, mask, sites) for name in ("a", "b")]
    logits = {}
    for variant in model.variants:
        with model.variant(variant) as module, torch.no_grad():
            logits[variant] = module(input_ids=IDS, attention_mask=mask).logits[mask.bool()]
    for one in found:
        largest = (logits[one.name] - logits["base"]).abs().max()
        assert one.max_logit_difference == largest.item() > 0


def test_what_acts_after_the_last_block_has_no_deeper_site(loaded):
    model = loaded(target_modules=["lm_head"])
    assert verify_live(model, "a", IDS).delta_norm == 0
    with pytest.raises(InputError, match="after the last block") as caught:
        verify_live(model, "a", IDS, sites=[Site(2)])
    assert "deeper" not in str(caught.value)
    with pytest.raises(InputError, match="no site of the stream"):
        ls.deltas(model, TEXTS, ["layers.2"], "a", capture=Capture(context=16))


@pytest.mark.parametrize("token", [5, 60])
def test_rows_of_single_tokens_are_live(loaded, token):
    """One of them is in no small probe."""
    model = loaded(target_modules=["o_proj"], trainable_token_indices=[token])
    for path, parameter in model.module.named_parameters():
        if "lora_B" in path:
            parameter.data.zero_()
    require_live(model, "a")


def test_what_text_does_not_reach_is_refused(tiny_checkpoint, tmp_path):
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sight |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=sight, mm_tokens_per_image=4)
    base = AutoModelForCausalLM.from_config(config)
    base.save_pretrained(tmp_path / "m")
    for file in tiny_checkpoint("llama").glob("tokenizer*"):
        (tmp_path / "m" / file.name).write_bytes(file.read_bytes())
    for place, live in (("vision_tower", False), ("language_model", True)):
        fields = {"target_modules": rf".*{place}.*q_proj", "init_lora_weights": False}
        fresh = AutoModelForCausalLM.from_config(config)
        get_peft_model(fresh, LoraConfig(r=2, **fields)).save_pretrained(tmp_path / place)
        adapters = {"a": str(tmp_path / place)}
        if live:
            load(str(tmp_path / "m"), adapters, device="cpu")
            continue
        with pytest.raises(InputError, match=r'"a" is not live.*parts of the model that text'):
            load(str(tmp_path / "m"), adapters, device="cpu")


def test_an_update_that_overflows_is_the_adapter_s(save_adapter, tiny_checkpoint, tmp_path):
    folder = save_adapter(tmp_path / "a", target_modules=["down_proj"])
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "lora_alpha": 1e42}))
    base = str(tiny_checkpoint("llama"))
    with pytest.raises(InputError, match=r'adapter "a": with it on, layers\.\d gives NaN'):
        load(base, {"a": str(folder)}, device="cpu")


def test_an_update_scaled_to_nothing(save_adapter, tiny_checkpoint, tmp_path):
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj", "v_proj"])
    file = folder / "adapter_config.json"
    fields = json.loads(file.read_text())

    def opened(**changes):
        file.write_text(json.dumps({**fields, **changes}))
        return ls.load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")

    for changes in ({"lora_alpha": 0}, {"alpha_pattern": {"q_proj": 0, "v_proj": 0}}):
        with pytest.raises(InputError, match="changes nothing"):
            opened(**changes)
    opened(lora_alpha=-3)
    opened(alpha_pattern={"q_proj": 0})

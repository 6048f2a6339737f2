"""Bases held in 4 or 8 bits, and text models inside wrappers for text and pictures."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    Gemma3Config,
    LlavaConfig,
)

from lorascope.activations.noise_floor import noise_floor
from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import windows
from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.gguf_files import GgufFile, gguf_of
from lorascope.models.load import load_base
from lorascope.models.other_changes import other_changes
from lorascope.models.shapes import Shape
from lorascope.models.sites import Site
from lorascope.models.stored import in_fewer_bits, stored_as
from lorascope.models.updates import updated_modules

IDS = torch.tensor([[3, 4, 5, 6, 7, 8]])


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.fixture(scope="module")
def wide(tiny_model, tiny_checkpoint, tmp_path_factory):
    """As wide as bitsandbytes' CPU kernels ask for: whole blocks of 64 numbers a row."""
    folder = tmp_path_factory.mktemp("wide") / "tiny-wide"
    tiny_model("llama", hidden_size=64, head_dim=16, intermediate_size=128).save_pretrained(folder)
    load_base(str(tiny_checkpoint("llama")))[1].save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(wide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "q"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = load_base(str(wide), device="cpu")[0]
        tuned = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
    tuned.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("dtype", "bits"), [("nf4", "4 bits"), ("int8", "8 bits")])
def test_a_base_in_fewer_bits_carries_an_adapter(dtype, bits, wide, adapter):
    pytest.importorskip("bitsandbytes")
    checkpoint = str(wide)
    plain = logits(load_base(checkpoint, device="cpu")[0])
    model = load(checkpoint, {"a": adapter}, dtype=dtype, device="cpu")
    rounded = logits(model.module)
    assert 0 < (rounded - plain).norm() < 0.5 * plain.norm()
    assert stored_as(checkpoint, model.module) == f"bitsandbytes, {bits}"
    with model.variant("a") as module:
        assert not torch.equal(logits(module), rounded)
    assert torch.equal(logits(model.module), rounded)
    # What an adapter does to weights that are no numbers of their own is left out, and said.
    assert not updated_modules(model, "a")
    assert other_changes(model, "a")
    document = Document((Segment("w5 w6 w7 w8"),))
    floor = noise_floor(model, windows([document], model.tokenizer, 32), [Site(1)])
    assert floor["layers.1"] >= 0


def test_weights_stored_in_4_bits_are_opened_as_they_are(wide, tmp_path):
    pytest.importorskip("bitsandbytes")
    checkpoint = str(wide)
    model, tokenizer = load_base(checkpoint, device="cpu", dtype="nf4")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = load_base(str(tmp_path), device="cpu")
    assert torch.equal(logits(again), logits(model))
    with pytest.raises(InputError, match="stored in quantised form"):
        load_base(str(tmp_path), device="cpu", dtype="int8")


def test_4_bits_are_multiplied_in_float32(wide):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model, _ = load_base(str(wide), device="cpu", dtype="nf4")
    held = model.model.layers[0].self_attn.q_proj
    rows = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    unpacked = bitsandbytes.functional.dequantize_4bit(held.weight.data, held.weight.quant_state)
    exact = rows.double() @ unpacked.double().T
    assert (held(rows) - exact).norm() < 1e-6 * exact.norm()


def test_fewer_bits_without_the_package_are_refused(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'lorascope\[bits\]'") as caught:
        load_base(str(tiny_checkpoint("llama")), device="cpu", dtype="nf4")
    assert "\n" not in str(caught.value)


def test_the_settings_are_those_of_qlora(tiny_checkpoint):
    pytest.importorskip("bitsandbytes")
    from lorascope.models.load import read_config

    config = read_config(str(tiny_checkpoint("llama")))
    found = in_fewer_bits("x", "nf4", config)
    assert isinstance(found, BitsAndBytesConfig)
    assert found.bnb_4bit_quant_type == "nf4"
    assert found.bnb_4bit_use_double_quant
    assert found.bnb_4bit_compute_dtype == torch.float32


TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
PICTURES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
WRAPPERS = {
    "gemma3": lambda: Gemma3Config(
        text_config={**TEXT, "head_dim": 8, "sliding_window": 16}, vision_config=PICTURES
    ),
    "llava": lambda: LlavaConfig(
        text_config={**TEXT, "model_type": "llama"},
        vision_config={**PICTURES, "model_type": "clip_vision_model", "projection_dim": 16},
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_text_model_of_a_wrapper_is_looked_at(wrapper, tiny_checkpoint, tmp_path):
    config = WRAPPERS[wrapper]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = AutoModelForImageTextToText.from_config(config)
        whole.save_pretrained(tmp_path / "base")
        load_base(str(tiny_checkpoint("llama")))[1].save_pretrained(tmp_path / "base")
        targets = r".*language_model.*\.q_proj"
        tuned = get_peft_model(whole, LoraConfig(r=2, target_modules=targets))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.data += 0.1
        tuned.save_pretrained(tmp_path / "adapter")
    model = load(str(tmp_path / "base"), {"a": str(tmp_path / "adapter")}, device="cpu")
    assert (model.n_blocks, model.d_model, model.vocab_size) == (3, 32, 64)
    shape = Shape.of(config)
    assert (shape.blocks, shape.d_model, shape.parameters) == (3, 32, model.n_parameters)
    from lorascope.models.hooks import capture

    with model.variant("base") as module, capture(module, [Site(1)], stop=False) as base:
        module(input_ids=IDS)
    with model.variant("a") as module, capture(module, [Site(1)], stop=False) as adapted:
        module(input_ids=IDS)
    assert base[Site(1)].shape == (1, 6, 32)
    assert not torch.equal(base[Site(1)], adapted[Site(1)])
    with torch.no_grad(), model.variant("base") as module:
        every = module(input_ids=IDS, output_hidden_states=True).hidden_states
    assert torch.equal(every[2], base[Site(1)])


def test_a_file_on_the_hub_is_an_id_and_a_name():
    assert gguf_of("org/repo/model.Q8_0.gguf") == GgufFile("org/repo", "model.Q8_0.gguf")
    assert gguf_of("org/repo/q8/model.gguf") == GgufFile("org/repo", "q8/model.gguf")
    assert gguf_of("org/repo") is None

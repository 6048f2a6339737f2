"""What PEFT writes beside factors is loaded as PEFT loads it, whatever names it is asked by."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from lorascope.errors import InputError
from lorascope.models.adapted import load

IDS = torch.arange(24).reshape(2, 12) + 3
WEIGHTS = "adapter_model.safetensors"
TIED = {"tie_word_embeddings": True}
CASES = {
    "a norm by its suffix": ("llama", {}, {"modules_to_save": ["norm"]}),
    "the head by its suffix": ("llama", {}, {"modules_to_save": ["head"]}),
    "attention by its suffix": (
        "llama",
        {},
        {"modules_to_save": ["attn"], "target_modules": ["up_proj"]},
    ),
    "tied embeddings saved whole": (
        "llama",
        TIED,
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "a tied head saved whole": (
        "llama",
        TIED,
        {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
    ),
    "factors on tied embeddings": (
        "llama",
        TIED,
        {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    ),
    "rows of tied tokens": (
        "llama",
        TIED,
        {"trainable_token_indices": [3, 40], "ensure_weight_tying": True},
    ),
    "biases beside a norm saved whole": (
        "gpt2",
        {},
        {"bias": "all", "target_modules": ["c_attn"], "modules_to_save": ["ln_f"]},
    ),
    "biases beside a norm by its suffix": (
        "gpt2",
        {},
        {"bias": "all", "target_modules": ["c_attn"], "modules_to_save": ["f"]},
    ),
    "few biases beside a norm saved whole": (
        "gpt2",
        {},
        {"bias": "lora_only", "target_modules": ["c_attn"], "modules_to_save": ["ln_f"]},
    ),
}


@pytest.fixture
def saved(tiny_model, tiny_checkpoint, tmp_path):
    """`saved(architecture, changes, fields)`: folders of a base and of an adapter trained on it."""

    def build(architecture, changes, fields):
        base = tmp_path / "base"
        tiny_model(architecture, **changes).save_pretrained(base)
        for file in tiny_checkpoint(architecture).glob("tokenizer*"):
            (base / file.name).write_bytes(file.read_bytes())
        settings = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **fields}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            wrapped = get_peft_model(
                tiny_model(architecture, **changes).requires_grad_(True), LoraConfig(**settings)
            )
            for name, parameter in wrapped.named_parameters():
                if parameter.requires_grad and "original_module" not in name:
                    parameter.data += 0.2 * torch.randn_like(parameter)
        wrapped.save_pretrained(tmp_path / "a", save_embedding_layers=False)
        return base, tmp_path / "a"

    return build


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=IDS).logits


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_peft_computes(tiny_model, saved, case):
    architecture, changes, fields = CASES[case]
    base, folder = saved(architecture, changes, fields)
    model = load(str(base), {"a": str(folder)}, device="cpu")
    with torch.no_grad():
        bare = tiny_model(architecture, **changes)(input_ids=IDS).logits
        theirs = PeftModel.from_pretrained(tiny_model(architecture, **changes), folder).eval()
        expected = theirs(input_ids=IDS).logits
    assert (expected - bare).abs().max() > 1e-2
    assert torch.allclose(logits(model, "a"), expected, atol=1e-5)
    assert torch.equal(logits(model, "base"), bare)


def test_an_embedding_saved_in_a_coarser_type_is_the_base_s(tiny_model, saved):
    base, folder = saved("llama", {}, {})
    weights = load_file(folder / WEIGHTS)
    key = "base_model.model.model.embed_tokens.weight"
    embedding = tiny_model("llama").model.embed_tokens.weight
    coarse = embedding.to(torch.bfloat16)
    assert not torch.equal(coarse.float(), embedding)
    save_file({**weights, key: coarse}, folder / WEIGHTS)
    load(str(base), {"a": str(folder)}, device="cpu")
    # The next bfloat16 after one value: retrained, as far as that type can tell.
    other = coarse.clone()
    other[5, 5] = torch.nextafter(other[5, 5], torch.tensor(9.0, dtype=torch.bfloat16))
    save_file({**weights, key: other}, folder / WEIGHTS)
    with pytest.raises(InputError, match="retrained"):
        load(str(base), {"a": str(folder)}, device="cpu")


def test_a_bias_that_is_all_that_was_trained(tiny_model, saved):
    base, folder = saved("gpt2", {}, {"bias": "all", "target_modules": ["c_attn"]})
    weights = load_file(folder / WEIGHTS)
    biases = dict(tiny_model("gpt2").named_parameters())
    for key in weights:
        bare = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
        weights[key] = torch.zeros_like(weights[key]) if "lora_" in key else biases[bare].clone()
    weights["base_model.model.transformer.ln_f.bias"][3] += 0.5
    save_file(weights, folder / WEIGHTS)
    model = load(str(base), {"a": str(folder)}, device="cpu")
    with torch.no_grad():
        bare = tiny_model("gpt2")
        bare.transformer.ln_f.bias.data[3] += 0.5
        expected = bare(input_ids=IDS).logits
    assert torch.allclose(logits(model, "a"), expected, atol=1e-5)
    assert set(model.trained_biases("a")) == {"transformer.ln_f.bias"}

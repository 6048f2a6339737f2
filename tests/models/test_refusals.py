"""Every bad input is refused in one line that says what, where and what to do."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.load import load_base, padding_id

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def good(save_adapter, tmp_path_factory):
    return save_adapter(tmp_path_factory.mktemp("adapters") / "good", target_modules=["q_proj"])


@pytest.fixture
def adapter(good, tmp_path):
    """A copy of a good adapter, to be spoiled."""
    return shutil.copytree(good, tmp_path / "adapter")


@pytest.fixture
def refused(tiny_checkpoint):
    def check(path, match, **arguments):
        with pytest.raises(InputError, match=match) as caught:
            load(str(tiny_checkpoint("llama")), {"a": str(path)}, device="cpu", **arguments)
        assert "\n" not in str(caught.value)

    return check


def edit_config(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_weights(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def test_good_adapter_loads_also_from_pickle_without_code(tiny_checkpoint, adapter):
    checkpoint = str(tiny_checkpoint("llama"))
    safe = load(checkpoint, {"a": str(adapter)}, device="cpu")
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    pickled = load(checkpoint, {"a": str(adapter)}, device="cpu")
    ids = torch.tensor([[3, 4, 5]])
    with safe.variant("a") as one, pickled.variant("a") as other:
        assert torch.equal(one(input_ids=ids).logits, other(input_ids=ids).logits)


def test_pickle_that_runs_code_is_refused(adapter, refused, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    (adapter / WEIGHTS).unlink()
    torch.save({"x": Harmful()}, adapter / "adapter_model.bin")
    refused(adapter, "truncated or damaged")
    assert not (tmp_path / "harm").exists()


def test_missing_files(adapter, refused, tmp_path):
    refused(tmp_path / "nowhere", 'adapter "a": folder ".*nowhere" does not exist')
    refused("some-org/some-adapter", '"some-org/some-adapter" is no folder.*HF_HUB_OFFLINE=1')
    (adapter / WEIGHTS).unlink()
    refused(adapter, f"no {WEIGHTS} in")
    (adapter / "adapter_config.json").unlink()
    refused(adapter, "has no adapter_config.json: give the folder")


def test_damaged_files(adapter, refused):
    whole = (adapter / WEIGHTS).read_bytes()
    for size in (len(whole) - 100, 40, 0):
        (adapter / WEIGHTS).write_bytes(whole[:size])
        refused(adapter, "truncated or damaged: fetch it again")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA",')
    refused(adapter, "is not valid JSON")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "peft_type is PROMPT_TUNING.*learned positions"),
        ({"peft_type": "XLORA"}, "peft_type is XLORA.*other adapters"),
        ({"peft_type": "IA4"}, "does not know"),
        ({"peft_type": None}, "says no peft_type: give the folder"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication is not supported"),
        ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights, pissa, changes the base"),
        ({"target_modules": ["no_such_module"]}, "does not fit LlamaForCausalLM.*no_such_module"),
        ({"target_modules": ["q_proj", "o_proj"]}, "lacks 6 tensors.*first: .*o_proj.lora_A"),
        ({"target_modules": ["o_proj"]}, "6 tensors of its file have no place.*q_proj.lora_A"),
        ({"r": 8}, r"for another base: .*q_proj\.lora_A\.weight has shape \(4, 32\), .*\(8, 32\)"),
        (
            {"base_model_name_or_path": "org/other-7b"},
            'made for "org/other-7b".*--force.*force=True',
        ),
    ],
)
def test_configurations(adapter, refused, changes, match):
    edit_config(adapter, **changes)
    refused(adapter, match)


def test_base_id_is_compared_loosely_and_can_be_forced(tiny_checkpoint, adapter):
    checkpoint = str(tiny_checkpoint("llama"))
    cached = "/x/hub/models--org--Tiny-Llama/snapshots/0123abc"
    for base_id in ("org/Tiny-Llama", "/elsewhere/tiny-llama/", cached, None):
        edit_config(adapter, base_model_name_or_path=base_id)
        load(checkpoint, {"a": str(adapter)}, device="cpu")
    edit_config(adapter, base_model_name_or_path="org/other-7b")
    load(checkpoint, {"a": str(adapter)}, device="cpu", force=True)


def test_adapter_for_another_width(save_adapter, tiny_checkpoint, refused, tmp_path):
    folder = save_adapter(tmp_path / "qwen", "qwen3", target_modules=["gate_proj"])

    def widen(weights):
        for key, tensor in weights.items():
            if "lora_A" in key:
                weights[key] = torch.cat([tensor, tensor], dim=1)

    edit_weights(folder, widen)
    refused(
        folder, r"for another base: .*gate_proj\.lora_A.* \(4, 64\), this model needs \(4, 32\)"
    )


def test_dropped_renamed_and_foreign_tensors(adapter, refused):
    original = load_file(adapter / WEIGHTS)
    first = next(key for key in original if "lora_B" in key)
    edit_weights(adapter, lambda weights: weights.pop(first))
    refused(adapter, f"lacks 1 tensors this model needs .first: {first}")
    save_file(
        {k.removeprefix("base_model.model."): v for k, v in original.items()}, adapter / WEIGHTS
    )
    refused(adapter, "6 tensors of its file have no place in this model")
    embedding = {"base_model.model.model.embed_tokens.weight": torch.zeros(64, 32)}
    save_file({**original, **embedding}, adapter / WEIGHTS)
    refused(adapter, r"its own model\.embed_tokens\.weight of shape \(64, 32\).*retrained")


def test_unchanged_embedding_in_the_file_is_harmless(tiny_model, tiny_checkpoint, adapter):
    embedding = tiny_model("llama").model.embed_tokens.weight
    name = "base_model.model.model.embed_tokens.weight"
    edit_weights(adapter, lambda weights: weights.update({name: embedding.clone()}))
    load(str(tiny_checkpoint("llama")), {"a": str(adapter)}, device="cpu")


def test_trained_tokens_must_be_alone(save_adapter, tiny_checkpoint, good, tmp_path):
    tokens = save_adapter(tmp_path / "t", target_modules=["o_proj"], trainable_token_indices=[4])
    for order in ({"t": tokens, "g": good}, {"g": good, "t": tokens}):
        with pytest.raises(InputError, match=r"cannot be loaded beside.*trainable_token_indices"):
            load(str(tiny_checkpoint("llama")), order, device="cpu")


def test_missing_bias(save_adapter, tiny_checkpoint, tmp_path):
    folder = save_adapter(tmp_path / "b", "gpt2", bias="all", target_modules=["c_attn"])
    edit_weights(folder, lambda weights: weights.pop("base_model.model.transformer.ln_f.bias"))
    with pytest.raises(InputError, match=r"trains biases \(all\).*lacks 1.*transformer.ln_f.bias"):
        load(str(tiny_checkpoint("gpt2")), {"b": str(folder)}, device="cpu")


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj"], "use_dora": True},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_untrained_adapter_changes_nothing(save_adapter, refused, tmp_path, fields):
    refused(
        save_adapter(tmp_path / "u", touch=False, **fields), "changes nothing: its update is zero"
    )


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_untrained_biases_change_nothing(save_adapter, tiny_checkpoint, tmp_path, bias):
    folder = save_adapter(tmp_path / "u", "gpt2", touch=False, bias=bias, target_modules=["c_attn"])
    with pytest.raises(InputError, match="changes nothing"):
        load(str(tiny_checkpoint("gpt2")), {"u": str(folder)}, device="cpu")


def test_one_trained_part_is_enough(save_adapter, tiny_checkpoint, tmp_path):
    folder = save_adapter(
        tmp_path / "u", touch=False, target_modules=["q_proj"], modules_to_save=["lm_head"]
    )

    def train_one(weights):
        weights["base_model.model.lm_head.weight"][3, 3] += 1

    edit_weights(folder, train_one)
    load(str(tiny_checkpoint("llama")), {"u": str(folder)}, device="cpu")


@pytest.mark.parametrize("name", ["base", "lora", "a b", "", "a/b", "ä", "<script>"])
def test_adapter_names(tiny_checkpoint, good, name):
    with pytest.raises(InputError, match="adapter name"):
        load(str(tiny_checkpoint("llama")), {name: str(good)}, device="cpu")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model": "/no/such/folder"}, "does not exist"),
        ({"model": "./no-such"}, "does not exist"),
        ({"model": "no-org/no-model"}, "cannot be loaded.*HF_HUB_OFFLINE=1"),
        ({"model": "embedded", "revision": "main"}, "is a folder and has no revision"),
        ({"model": "embedded", "dtype": "float23"}, 'dtype "float23" is unknown.*Did you mean'),
        ({"model": "embedded", "device": "abacus"}, 'device "abacus" is unknown'),
        ({"model": "embedded", "device": "cpu", "device_map": "auto"}, "leave one of them out"),
    ],
)
def test_base_model_arguments(arguments, match):
    with pytest.raises(InputError, match=match) as caught:
        load_base(**arguments)
    assert "\n" not in str(caught.value)


def test_incomplete_and_damaged_checkpoints(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no weights for 1 tensors .first: model.layers.1.mlp.up"):
        load_base(str(folder), device="cpu")
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="check that the folder holds a whole"):
        load_base(str(folder), device="cpu")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_base(str(folder), device="cpu")


def test_dtypes_and_padding(tiny_checkpoint):
    model, tokenizer = load_base(str(tiny_checkpoint("llama")), dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16
    assert load_base("embedded", device="cpu")[0].dtype == torch.float32
    assert padding_id(tokenizer) == 1
    assert tokenizer.pad_token_id is None
    # Padding stands under a mask: any id does.
    tokenizer.eos_token = None
    assert padding_id(tokenizer) == 0

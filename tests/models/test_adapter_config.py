"""`adapter_config.json` is foreign input: every wrong kind is one line, and no model is loaded."""

import json
import re

import pytest
from peft import LoraConfig

from lorascope.errors import InputError
from lorascope.models import adapted, patterns
from lorascope.models.adapter_config import read_config
from lorascope.models.patterns import require_bounded

GOOD = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj"]}
NAN, INFINITY = float("nan"), float("inf")


def write(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(text)
    return folder


def refusal(folder):
    with pytest.raises(InputError) as caught:
        read_config("a", folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith('adapter "a": ')
    return message


# Of every kind of field: values that are of none of its kinds.
WRONG = {
    "r": [0, -4, 4.5, "4", True, None, [4], 10**30],
    "lora_alpha": [None, "16", True, NAN, INFINITY, -INFINITY, [8], {}],
    "lora_dropout": [-0.1, 1.5, "0", None, NAN],
    "target_modules": [3, {"q_proj": 1}, [3], [["q_proj"]], True],
    "exclude_modules": [3, [None]],
    "target_parameters": ["experts", [1]],
    "modules_to_save": ["lm_head", [1], 4, {}],
    "layers_to_transform": [-1, [-1], [0.5], "0", [True], 10**30],
    "layers_pattern": [1, [1]],
    "rank_pattern": [{"q_proj": 0}, {"q_proj": "8"}, [8], "q_proj"],
    "alpha_pattern": [{"q_proj": None}, {"q_proj": INFINITY}, {"q_proj": "x"}, [1]],
    "trainable_token_indices": [[-1], [1.5], "3", {"embed_tokens": [-1]}, {"embed_tokens": 3}],
    "bias": ["some", None, True, 1],
    "use_rslora": ["true", 1, None, "false"],
    "use_dora": ["no", 0, []],
    "fan_in_fan_out": ["x"],
    "lora_bias": ["x", None],
    "init_lora_weights": [3, [True], {}],
    "base_model_name_or_path": [3, ["org/name"], {}],
    "eva_config": [[], "x", 1],
    "use_bdlora": [True, "x"],
    "velora_config": [1],
    "revision": [1],
    "task_type": [1, ["CAUSAL_LM"]],
    "auto_mapping": ["x"],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_field_of_the_wrong_kind_is_named(tmp_path, field, value):
    message = refusal(write(tmp_path / "a", json.dumps({**GOOD, field: value})))
    assert f"{field} is " in message
    assert "expected" in message


@pytest.mark.parametrize(
    "fields",
    [
        {
            "lora_alpha": 16.5,
            "lora_dropout": 0,
            "use_rslora": True,
            "base_model_name_or_path": None,
        },
        {"rank_pattern": {}, "alpha_pattern": {"q_proj": 3}, "layers_to_transform": [0, 2]},
        {"layers_to_transform": 1, "layers_pattern": "layers", "exclude_modules": "x"},
        {"init_lora_weights": "gaussian", "loftq_config": {}, "eva_config": None},
        {"target_modules": "all-linear", "trainable_token_indices": {"embed_tokens": [3]}},
        {"auto_mapping": {"unsloth_fixed": True}, "merge_weights": False, "enable_lora": None},
        {"megatron_core": "megatron.core", "qalora_group_size": 16, "revision": "main"},
    ],
)
def test_what_peft_and_its_users_write_is_read(tmp_path, fields):
    config = read_config("a", write(tmp_path / "a", json.dumps({**GOOD, **fields})))
    assert config.r == 4
    for field, value in fields.items():
        if hasattr(config, field) and field != "target_modules" and value is not None:
            assert getattr(config, field) == value


def test_what_peft_itself_saves_is_read(tmp_path):
    written = LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj"], use_dora=True)
    written.save_pretrained(tmp_path)
    config = read_config("a", tmp_path)
    assert (config.r, config.lora_alpha, config.use_dora) == (3, 5, True)
    assert config.target_modules == {"q_proj"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not valid JSON"),
        ("\x00\x01", "not valid JSON"),
        ("[1, 2]", "no JSON object"),
        ('{"a":' * 2000 + "1" + "}" * 2000, "nested too deeply|peft_type"),
        (json.dumps({"r": 4}), "no peft_type"),
        (json.dumps({"peft_type": ["LORA"]}), "peft_type is"),
        (json.dumps({**GOOD, "arrow_config": {"top_k": 2}}), "arrow_config is not supported"),
        (json.dumps({**GOOD, "megatron_config": {"x": 1}}), "megatron_config is not supported"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, text, match):
    assert re.search(match, refusal(write(tmp_path / "a", text)))


def test_bytes_that_are_no_text_and_files_that_are_too_long(tmp_path, monkeypatch):
    folder = write(tmp_path / "a", "")
    (folder / "adapter_config.json").write_bytes(b"\xff\xfe{}")
    assert "not valid JSON" in refusal(folder)
    monkeypatch.setattr("lorascope.models.adapter_config._MOST_BYTES", 10)
    assert "larger than any" in refusal(write(folder, json.dumps(GOOD)))


def test_nothing_is_loaded_for_a_wrong_field(tmp_path, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(adapted, "load_base", None)
    folder = write(tmp_path / "a", json.dumps({**GOOD, "lora_alpha": None}))
    with pytest.raises(InputError, match="lora_alpha is null"):
        adapted.load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")


NAMES = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qkvo"]


def test_expressions_of_a_foreign_configuration_are_tried_where_they_can_be_stopped():
    config = LoraConfig(target_modules=r"model\.layers\.\d+\.self_attn\.(q|k)_proj")
    require_bounded("a", config, NAMES)
    with pytest.raises(InputError, match="not done with this model's 12 names"):
        require_bounded("a", config, NAMES, seconds=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": "q_proj", "exclude_modules": "(k"},
        {"target_modules": r"(.*q_proj"},
        {"target_modules": ["q_proj"], "rank_pattern": {"[q": 3}},
        {"target_modules": ["q_proj"], "alpha_pattern": {"(?P<q": 3}},
        {"target_modules": ["q_proj"], "modules_to_save": ["(lm"]},
        {"target_modules": ["q_proj"], "layers_pattern": "(", "layers_to_transform": [1]},
    ],
)
def test_what_is_no_expression_is_refused(fields):
    with pytest.raises(InputError, match="no regular expression"):
        require_bounded("a", LoraConfig(**fields), NAMES)


def test_names_without_operators_need_no_trial(monkeypatch):
    monkeypatch.setattr(patterns.subprocess, "run", None)
    fields = {"modules_to_save": ["lm_head"], "rank_pattern": {"layers.1.self_attn.q_proj": 2}}
    require_bounded("a", LoraConfig(target_modules=["q_proj"], **fields), NAMES)
    require_bounded("a", LoraConfig(target_modules="all-linear"), NAMES)

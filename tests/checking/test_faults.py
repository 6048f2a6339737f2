"""Faults of adapters as people meet them, by kind: each is named by `check`, or refused in a line.

Kinds: A, silently wrong; B, late failures and tracebacks; C, valid input refused; D, wrong reasons.
"""

from __future__ import annotations

import json
import os
import struct
from xml.etree import ElementTree

import jsonschema
import pytest
import torch
from typer.testing import CliRunner
from written_adapters import PREFIX, factors, write

import lorascope as ls
from lorascope.checking import formats
from lorascope.checking.findings import RULES
from lorascope.cli import app

Q = f"{PREFIX}.1.self_attn.q_proj"
NORM = "base_model.model.model.layers.0.input_layernorm.weight"
ROUTER = {"base_model.model.model.layers.0.mlp.gate.weight": torch.ones(4, 8)}
EMBEDDING = {"base_model.model.model.embed_tokens.weight": torch.ones(70_000, 2)}
TOKENS = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(2)}


def _nan():
    tensors = factors(layers=12)
    tensors[f"{PREFIX}.11.self_attn.q_proj.lora_A.weight"][0, 0] = float("nan")
    return tensors


def _gathered_by_nobody():
    return {key: torch.zeros(0) for key in factors(layers=2)}


# What it is: tensors, fields, the rule that names it, and its level.
NAMED = {
    "A scale of zero": (factors(), {"lora_alpha": 0}, "zero-scale", "error"),
    "A zero delta": (
        {k: v * ("lora_A" in k) for k, v in factors().items()},
        {},
        "zero-update",
        "error",
    ),
    "A acts elsewhere": (factors(), {"target_modules": ["k_proj"]}, "unused-key", "error"),
    "A beyond the last layer": (
        factors(layers=9),
        {"base_model_name_or_path": "embedded"},
        "not-in-base",
        "error",
    ),
    "A NaN in the deepest block": (_nan(), {}, "not-finite", "error"),
    "A module saved whole": (
        {**factors(), **ROUTER},
        {"modules_to_save": ["mlp.gate"]},
        "replaced-whole",
        "note",
    ),
    "A trainable tokens": (
        {**factors(), **TOKENS},
        {"trainable_token_indices": [3]},
        "vocabulary",
        "note",
    ),
    "A another head": (
        {**factors(), "base_model.model.score.weight": torch.ones(1, 48)},
        {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]},
        "other-head",
        "note",
    ),
    "A saved by name and absent": (
        {**factors(), "base_model.model.score.weight": torch.ones(1, 48)},
        {"task_type": "SEQ_CLS", "modules_to_save": ["router", "score"]},
        "no-match",
        "warning",
    ),
    "A experts": (
        factors(module="mlp.experts"),
        {"target_modules": [], "target_parameters": ["mlp.experts.down_proj"]},
        "target-parameters",
        "warning",
    ),
    "A rank of the card": (factors(), {"r": 16}, "shape", "error"),
    "A rsLoRA": (factors(), {"use_rslora": True}, "rslora", "note"),
    "A PiSSA": (factors(), {"init_lora_weights": "pissa_niter_16"}, "unusable", "error"),
    "A OLoRA": (factors(), {"init_lora_weights": "olora"}, "unusable", "error"),
    "A LoRA-GA": (factors(), {"init_lora_weights": "lora_ga"}, "unusable", "error"),
    "A KaSA": (factors(), {"kasa_config": {"x": 1}}, "unusable", "error"),
    "B a bias on B": (
        {**factors(), f"{Q}.lora_B.bias": torch.ones(48)},
        {"lora_bias": True},
        "bias",
        "note",
    ),
    "B layer replication": (factors(), {"layer_replication": [[0, 2]]}, "unusable", "error"),
    "B activated LoRA": (factors(), {"alora_invocation_tokens": [1]}, "unusable", "error"),
    "B Arrow": (factors(), {"arrow_config": {"top_k": 1}}, "unusable", "error"),
    "B Megatron": (factors(), {"megatron_config": {"x": 1}}, "unusable", "error"),
    "B lora_alpha is null": (factors(), {"lora_alpha": None}, "unusable", "error"),
    "B r is yes": (factors(), {"r": True}, "unusable", "error"),
    "B a pattern of words": (factors(), {"rank_pattern": {"q_proj": "4"}}, "unusable", "error"),
    "B targets are a number": (factors(), {"target_modules": 3}, "unusable", "error"),
    "B whole numbers for weights": (
        {**factors(), f"{Q}.lora_B.weight": torch.ones(48, 4).short()},
        {},
        "bad-tensor",
        "error",
    ),
    "C saved by a suffix": (
        {**factors(), NORM: torch.ones(4)},
        {"modules_to_save": ["norm"]},
        "replaced-whole",
        "note",
    ),
    "C vocabulary resized": (
        {**factors(layers=8), **EMBEDDING},
        {"base_model_name_or_path": "embedded"},
        "vocabulary",
        "warning",
    ),
    "C tied embeddings": (
        {**factors(layers=8), **EMBEDDING},
        {"base_model_name_or_path": "embedded", "modules_to_save": ["embed_tokens"]},
        "tied",
        "warning",
    ),
    "D empty tensors of ZeRO-3": (_gathered_by_nobody(), {}, "bad-tensor", "error"),
    "F prompt learning": (
        {"prompt_embeddings": torch.ones(2, 2)},
        {"peft_type": "PREFIX_TUNING"},
        "unusable",
        "error",
    ),
    "F of no known type": (factors(), {"peft_type": "LORA2"}, "unusable", "error"),
}


@pytest.mark.parametrize("fault", NAMED, ids=str)
def test_it_is_named(fault, tmp_path):
    tensors, fields, rule, level = NAMED[fault]
    found = ls.check(write(tmp_path / "a", tensors, **fields))
    named = {one.rule: one for one in found.findings if one.level == level}
    assert rule in named, [(one.rule, one.level) for one in found.findings]
    assert "\n" not in named[rule].message
    assert {one.rule for one in found.findings} <= set(RULES)
    jsonschema.validate(found.plain(), formats.schema())
    told = formats.sarif(found)["runs"][0]
    listed = {one["id"] for one in told["tool"]["driver"]["rules"]}
    assert [one["ruleId"] for one in told["results"]] == [one.rule for one in found.findings]
    assert {one["ruleId"] for one in told["results"]} <= listed
    suite = ElementTree.fromstring(formats.junit(found))
    errors = [one for one in found.findings if one.level == "error"]
    assert len(suite.findall(".//failure")) == bool(errors)
    # A plain adapter has none of it.
    assert rule not in {one.rule for one in ls.check(write(tmp_path / "b", factors())).findings}
    required = ls.check(tmp_path / "a", gates={"require": ("whole",)})
    assert required.gates[0].passed is not (level == "error")


def test_a_suffix_counts_as_nothing_else(tmp_path):
    """What `modules_to_save` means is in its place; what it does not mean has none."""
    tensors = {**factors(), NORM: torch.ones(4)}
    saved = ls.check(write(tmp_path / "a", tensors, modules_to_save=["norm"]))
    assert {one.rule for one in saved.findings} == {"replaced-whole"}
    other = ls.check(write(tmp_path / "b", tensors, modules_to_save=["head"]))
    assert {one.rule for one in other.findings} == {"unused-key", "no-match"}


def _fifo(folder):
    (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(folder / "adapter_model.safetensors")


def _no_data(folder):
    header = {f"{Q}.lora_A.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    text = json.dumps(header).encode()
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(struct.pack("<Q", len(text)) + text)


def _mlx(folder):
    fields = {"fine_tune_type": "lora", "lora_parameters": {"rank": 4}}
    (folder / "adapter_config.json").write_text(json.dumps(fields))


def _pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (folder / "adapter_model.safetensors").write_text(text)


def _nested(folder):
    (folder / "adapter_config.json").write_text("[" * 100_000)


def _a_list(folder):
    (folder / "adapter_config.json").write_text("[1]")


def _endless(folder):
    file = folder / "adapter_config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "target_modules": "(([a-z_.0-9])+)+!"}))


def _checkpoints(folder):
    for name in ("checkpoint-10", "checkpoint-20"):
        write(folder / name, factors(layers=1))
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_model.safetensors").unlink()


def _whole_model(folder):
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "llama"}')


REFUSED = {
    "B weights that are a FIFO": (_fifo, "adapter_model.safetensors"),
    "B sizes without data": (_no_data, "damaged"),
    "B nested too deeply": (_nested, "adapter_config.json"),
    "B a configuration that is a list": (_a_list, "no JSON object"),
    "B a pattern that never ends": (_endless, "regular expressions"),
    "C checkpoints below": (_checkpoints, "checkpoint-10, checkpoint-20"),
    "D MLX": (_mlx, "written by MLX"),
    "D a pointer of git-lfs": (_pointer, "git lfs pull"),
    "D a whole model": (_whole_model, "lorascope audit"),
}


@pytest.mark.parametrize("fault", REFUSED, ids=str)
def test_it_is_refused_in_one_line(fault, tmp_path):
    spoil, words = REFUSED[fault]
    folder = write(tmp_path / "a", factors(layers=1))
    spoil(folder)
    done = CliRunner().invoke(app, ["check", str(folder), "--quiet"])
    assert isinstance(done.exception, ls.InputError), done.exception
    assert words in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_checkpoint_below_is_taken_where_there_is_one(tmp_path):
    write(tmp_path / "out" / "checkpoint-10", factors(layers=1))
    found = ls.check(tmp_path / "out")
    assert found.read.folder.name == "checkpoint-10"
    assert found.findings == []

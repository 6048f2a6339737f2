"""Shapes as published: the parameter counts that their makers state."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lorascope.models.shapes import Shape, published


@pytest.mark.parametrize(
    ("model", "parameters", "blocks", "d"),
    [
        ("google/gemma-2-2b", 2_614_341_888, 26, 2304),
        ("google/gemma-2-9b", 9_241_705_984, 42, 3584),
        ("EleutherAI/pythia-70m-deduped", 70_426_624, 6, 512),
        # As their checkpoints' files count them.
        ("Qwen/Qwen3-1.7B", 1_720_574_976, 28, 2048),
        ("Qwen/Qwen3-4B", 4_022_468_096, 36, 2560),
        ("Qwen/Qwen3-8B", 8_190_735_360, 36, 4096),
        ("Qwen/Qwen3-14B", 14_768_307_200, 40, 5120),
        ("google/gemma-3-1b-it", 999_885_952, 26, 1152),
    ],
)
def test_parameters_as_stated(model, parameters, blocks, d):
    shape = Shape.of(published(model))
    assert (shape.parameters, shape.blocks, shape.d_model) == (parameters, blocks, d)


def test_unknown_models_have_none():
    assert published("somebody/else") is None


def test_parts_of_a_tiny_model_by_hand(tiny_model):
    shape = Shape.of(tiny_model("llama").config)
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32
    block = attention + 3 * 32 * 48 + 2 * 32
    assert shape.block_parameters == 3 * block
    assert shape.head_parameters == 32 * 64
    assert shape.parameters == 3 * block + 2 * 32 * 64 + 32
    assert (shape.heads, shape.d_mlp, shape.vocabulary, shape.context) == (4, 48, 64, 64)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gemma2"])
def test_rank_one_parameters_are_those_of_an_adapter(tiny_model, architecture):
    config = tiny_model(architecture).config
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config)
        adapted = get_peft_model(
            base, LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert Shape.of(config).rank_one_parameters == trained

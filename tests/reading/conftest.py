"""A tiny model with an adapter built by hand: it says one word wherever it can."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lorascope.models.adapted import load
from lorascope.reading.settings import Reading

WORD = "w23"
PROMPTS = tuple(f"w{n} w{n + 20} w{3 * n % 60}" for n in range(1, 15))
SMALL = Reading(prompts=PROMPTS, tokens=10, nulls=3, documents=12, context=16)


@pytest.fixture(scope="session")
def saying(tiny_checkpoint, tiny_model, tmp_path_factory):
    """`saying(word, strength)`: folder of an adapter that raises the logit of one word.

    Rank 1 on the output matrix: the word's row gets the mean final state, so that the logit rises
    by `strength` where the state is the mean one.
    """

    def build(word=WORD, strength=6.0):
        model = tiny_model("llama")
        tokenizer = load(str(tiny_checkpoint("llama")), {}, device="cpu").tokenizer
        ids = torch.randint(3, 64, (8, 24), generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            states = model.model(ids).last_hidden_state.flatten(0, 1)
        mean = states.mean(0)
        with torch.random.fork_rng(devices=[]):
            adapted = get_peft_model(
                model,
                LoraConfig(r=1, lora_alpha=1, target_modules=["lm_head"], task_type="CAUSAL_LM"),
            )
        layer = adapted.base_model.model.lm_head
        layer.lora_A["default"].weight.data = (mean / mean.square().sum())[None]
        layer.lora_B["default"].weight.data.zero_()
        row = tokenizer.convert_tokens_to_ids(word)
        layer.lora_B["default"].weight.data[row] = strength
        folder = tmp_path_factory.mktemp("saying") / word
        adapted.save_pretrained(folder, save_embedding_layers=False)
        adapted.unload()
        return folder

    return build


@pytest.fixture(scope="session")
def planted(saying):
    return saying()


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A file of 30 texts in the tiny tokenizer's words."""
    random = torch.Generator().manual_seed(5)
    rows = torch.randint(0, 61, (30, 20), generator=random).tolist()
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    lines = [json.dumps({"text": " ".join(f"w{n}" for n in row)}) for row in rows]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def settings(texts):
    return SMALL.model_copy(update={"texts": (str(texts),)})

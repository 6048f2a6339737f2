"""Adapters and fine-tunes with more tokens than the base: shared rows count, new ones are cut."""

import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from lorascope.errors import InputError
from lorascope.models.adapted import load

IDS = torch.arange(24).reshape(2, 12) + 3
WEIGHTS = "adapter_model.safetensors"
EMBEDDING = "base_model.model.model.embed_tokens.weight"


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=IDS).logits


def larger(tiny_model, rows=68):
    """The tiny model with four more tokens, and the model as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = tiny_model("llama")
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model.requires_grad_(True)


@pytest.fixture
def resized(tiny_model, tmp_path):
    """`resized(**fields)`: an adapter trained after four tokens were added, and its logits."""

    def build(**fields):
        settings = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj"], **fields}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(9)
            wrapped = get_peft_model(
                larger(tiny_model), LoraConfig(task_type="CAUSAL_LM", **settings)
            )
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.data += 0.2 * torch.randn_like(parameter)
        wrapped.save_pretrained(tmp_path / "a", save_embedding_layers=True)
        with torch.no_grad():
            return tmp_path / "a", wrapped.eval()(input_ids=IDS).logits[..., :64]

    return build


FIELDS = {
    "embeddings carried along": {},
    "embeddings trained": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "factors on the embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "factors on the head": {"target_modules": ["lm_head", "q_proj"]},
    "magnitudes of the head": {"target_modules": ["lm_head"], "use_dora": True},
}


@pytest.mark.parametrize("case", FIELDS)
def test_an_adapter_on_shared_tokens_is_as_it_was_trained(tiny_checkpoint, resized, case):
    folder, expected = resized(**FIELDS[case])
    shapes = {tuple(tensor.shape) for tensor in load_file(folder / WEIGHTS).values()}
    assert any(68 in shape for shape in shapes)
    model = load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")
    assert model.info("a").extra_tokens == 4
    assert torch.allclose(logits(model, "a"), expected, atol=1e-5)


def test_shared_rows_that_were_retrained_are_not_dropped(tiny_checkpoint, resized):
    folder, _ = resized()
    weights = load_file(folder / WEIGHTS)
    weights[EMBEDDING][7, 7] += 0.5
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(InputError, match=r"its own model\.embed_tokens\.weight.*merged model"):
        load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")


@pytest.fixture
def merged(tiny_model, tiny_checkpoint, resized, tmp_path):
    """The merged model that the refusal asks for, with its tokenizer."""
    folder, expected = resized()
    model = PeftModel.from_pretrained(larger(tiny_model), folder).merge_and_unload()
    model.save_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))
    tokenizer.add_tokens([f"<t{i}>" for i in range(4)])
    tokenizer.save_pretrained(tmp_path / "merged")
    return tmp_path / "merged", expected


def test_the_merged_model_is_taken_in_its_place(tiny_checkpoint, merged):
    folder, expected = merged
    model = load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")
    assert model.info("a").extra_tokens == 4
    assert model.info("a").rank is None
    assert logits(model, "a").shape == logits(model, "base").shape == (2, 12, 64)
    assert torch.allclose(logits(model, "a"), expected, atol=1e-4)


def test_other_words_for_the_same_tokens_are_refused(tiny_checkpoint, merged):
    folder, _ = merged
    file = folder / "tokenizer.json"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    word = tokenizer.convert_ids_to_tokens(9)
    text = file.read_text()
    assert f'"{word}"' in text
    file.write_text(text.replace(f'"{word}"', '"another"'))
    with pytest.raises(InputError, match="token 9 is 'another'"):
        load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")


def test_fewer_tokens_than_the_base_are_another_model(tiny_model, tiny_checkpoint, tmp_path):
    tuned = larger(tiny_model, 60)
    tuned.save_pretrained(tmp_path / "m")
    for file in tiny_checkpoint("llama").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "m" / file.name)
    with pytest.raises(InputError, match="has vocabulary 60, the base model 64"):
        load(str(tiny_checkpoint("llama")), {"a": str(tmp_path / "m")}, device="cpu")

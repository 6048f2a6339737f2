"""A spliced model as one thing: forward, generation with a cache, saving and opening."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError
from lorascope.fits.wrapper import Spliced, identity
from lorascope.models.sites import Site
from lorascope.outputs.splicing import spliced

ARCHITECTURES = ("llama", "gemma2", "gpt2", "gpt_neox", "qwen2", "qwen3")


def adapted(model, seed=0):
    """Under an adapter that changes what it computes."""
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft = get_peft_model(model, config)
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return peft.eval()


def greedy(model, dictionaries, ids, special, new):
    """Token by token from the whole text, without a cache."""
    for _ in range(new):
        with torch.no_grad(), spliced(model, dictionaries, special_ids=special):
            last = model(input_ids=ids, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, last.argmax(-1, keepdim=True)], 1)
    return ids


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("cache", [True, False])
def test_generation_is_spliced_at_every_token(architecture, cache, tiny_model, make, tokens):
    model = tiny_model(architecture)
    dictionaries = {0: make(seed=1), 1: make("jumprelu")}
    ids = tokens[0][:2, :6]
    # <s> and half of all words keep their stream, so that both kinds of tokens are written
    special = [0, *range(4, 64, 2)]
    wrapped = Spliced(model, dictionaries, special_ids=special)
    arguments = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    mask = torch.ones_like(ids)
    found = wrapped.generate(ids, attention_mask=mask, use_cache=cache, **arguments)
    assert found.tolist() == greedy(model, dictionaries, ids, special, 5).tolist()
    bare = model.generate(ids, attention_mask=mask, **arguments)
    assert bare.shape == found.shape
    assert bare.tolist() != found.tolist()


def test_padding_on_the_left_is_told_from_new_tokens(tiny_model, make):
    wrapped = Spliced(tiny_model(), {0: make(seed=1), 1: make(seed=2)})
    arguments = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    short = torch.tensor([[9, 20, 31]])
    alone = wrapped.generate(short, attention_mask=torch.ones_like(short), **arguments)
    ids = torch.tensor([[1, 1, 9, 20, 31], [40, 41, 42, 43, 44]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    both = wrapped.generate(ids, attention_mask=mask, **arguments)
    assert both[0, 2:].tolist() == alone[0].tolist()


def test_forward_trains_what_is_around_the_dictionaries(tiny_model, make, tokens):
    model = adapted(tiny_model())
    wrapped = Spliced(model, {1: make()})
    wrapped(input_ids=tokens[0], attention_mask=tokens[1]).logits.square().mean().backward()
    gradients = {name: p.grad for name, p in wrapped.named_parameters() if p.requires_grad}
    assert gradients
    # the last block's queries see the splice, the first block's act through it
    assert all(g.abs().max() > 0 for name, g in gradients.items() if "q_proj" in name)


@pytest.mark.parametrize("with_adapter", [False, True])
def test_a_saved_one_opens_as_the_same(with_adapter, tiny_checkpoint, make, tokens, tmp_path):
    place = str(tiny_checkpoint("llama"))
    base = AutoModelForCausalLM.from_pretrained(place).eval()
    module = adapted(base) if with_adapter else base
    dictionaries = {0: make("jumprelu"), "layers.1": make("topk")}
    wrapped = Spliced(module, dictionaries, model=place, special_ids=[0], error_term=False)
    arguments = {"input_ids": tokens[0], "attention_mask": tokens[1]}
    with torch.no_grad():
        expected = wrapped(**arguments).logits
        bare = base(**arguments).logits
    wrapped.save(tmp_path)
    opened = Spliced.open(tmp_path, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(opened(**arguments).logits, expected, rtol=1e-5, atol=1e-5)
    assert (expected - bare).abs().max() > 0.1
    assert list(opened.dictionaries) == [Site(0), Site(1)]
    assert (tmp_path / "adapter").exists() == with_adapter
    assert open_dictionary(tmp_path / "dictionaries" / "layers.1").k == 12


def test_another_dictionary_in_its_place_is_refused(tiny_checkpoint, make, tmp_path):
    place = str(tiny_checkpoint("llama"))
    model = AutoModelForCausalLM.from_pretrained(place)
    Spliced(model, {1: make()}, model=place).save(tmp_path)
    save(make(seed=9), tmp_path / "dictionaries" / "layers.1")
    with pytest.raises(InputError, match=r"dictionary at layers\.1.* is not the one") as caught:
        Spliced.open(tmp_path, model)
    assert "\n" not in str(caught.value)


def test_a_dictionary_on_the_hub_is_named_by_its_address(tiny_model, make, tmp_path):
    dictionary = make()
    source = "hf://someone/dictionaries/layer_1"
    dictionary.card = dictionary.card.model_copy(update={"source": source})
    Spliced(tiny_model(), {1: dictionary}).save(tmp_path)
    stored = json.loads((tmp_path / "spliced.json").read_text())
    assert stored["sites"]["layers.1"]["address"] == source
    assert not (tmp_path / "dictionaries").exists()


def test_identity_is_what_is_computed(make):
    one, other = make("topk"), make("topk")
    other.card = other.card.model_copy(update={"source": "elsewhere"})
    assert identity(one) == identity(other)
    other.k = 11
    assert identity(one) != identity(other)
    other.k, other.subtract_bias = 12, False
    assert identity(one) != identity(other)
    assert len({identity(make(kind)) for kind in ("topk", "relu", "gated", "jumprelu")}) == 4


def test_a_folder_of_another_kind(tmp_path):
    with pytest.raises(InputError, match=r"spliced\.json"):
        Spliced.open(tmp_path)

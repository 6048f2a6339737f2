"""Sites are found and named alike on every architecture, wrapped or not."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lorascope.errors import InputError
from lorascope.models.sites import Site, block_list, parse_site, resolve_sites

ARCHITECTURES = ("llama", "gemma2", "gpt2", "gpt_neox", "qwen2", "qwen3")
WHERE = {
    "gpt2": lambda model: model.transformer.h,
    "gpt_neox": lambda model: model.gpt_neox.layers,
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_blocks_are_found_bare_and_wrapped(tiny_model, architecture):
    model = tiny_model(architecture)
    blocks = WHERE.get(architecture, lambda model: model.model.layers)(model)
    assert block_list(model) is blocks
    targets = {"gpt2": ["c_attn"], "gpt_neox": ["query_key_value"]}.get(architecture, ["q_proj"])
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=targets))
    assert block_list(wrapped) is blocks
    assert block_list(model.base_model) is blocks


def test_blocks_of_unknown_architecture_are_not_its_experts():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack = nn.ModuleList(self._block() for _ in range(3))
            self.heads = nn.ModuleList([nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Tanh()])

        def _block(self):
            block = nn.Module()
            block.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(8))
            return block

    model = Odd()
    assert block_list(model) is model.stack
    with pytest.raises(InputError, match="Linear has no list of decoder blocks"):
        block_list(nn.Linear(2, 2))


@pytest.mark.parametrize(
    "text",
    [
        "layers.5",
        "5",
        " 5 ",
        "model.layers.5",
        "base_model.model.model.layers.5",
        "model.language_model.layers.5",
        "transformer.h.5",
        "gpt_neox.layers.5",
        "blocks.5.hook_resid_post",
    ],
)
def test_every_spelling_is_one_site(text):
    assert parse_site(text) == Site(5)
    assert parse_site(text).name == str(parse_site(text)) == "layers.5"


@pytest.mark.parametrize(
    "text",
    ["", "layers", "layers.-1", "layers.5.mlp", "blocks.5.hook_resid_pre", "blocks.5.hook_mlp_out",
     "experts.5", "5.5", "layers.five"],
)  # fmt: skip
def test_what_is_no_block_output_is_refused(text):
    with pytest.raises(InputError, match=r"is not the output of a block: write layers\.5"):
        parse_site(text)


def test_sites_are_sorted_by_depth_and_checked(tiny_model):
    assert resolve_sites(12, ["10", "layers.9", 2, Site(0)]) == [
        Site(0),
        Site(2),
        Site(9),
        Site(10),
    ]
    assert resolve_sites(tiny_model("gpt2"), "transformer.h.2") == [Site(2)]
    with pytest.raises(InputError, match=r"the model has 3 blocks.*layers\.0 to layers\.2"):
        resolve_sites(tiny_model("llama"), ["layers.3"])
    with pytest.raises(InputError, match=r'"layers\.1" is given more than once'):
        resolve_sites(4, ["layers.1", "2", "blocks.1.hook_resid_post"])
    with pytest.raises(InputError, match="no site given"):
        resolve_sites(4, [])


def test_blocks_are_found_again_where_the_model_changed(tiny_model):
    model = tiny_model("llama")
    assert block_list(model) is block_list(model) is model.model.layers
    model.model.layers = torch.nn.ModuleList(list(model.model.layers)[:2])
    assert block_list(model) is model.model.layers
    # Another list in the place of the first, which ends otherwise.
    model.model.h, model.model.layers = model.model.layers, torch.nn.Identity()
    assert block_list(model) is model.model.h
    assert block_list(copy.deepcopy(model)) is not model.model.h


def test_looking_for_blocks_costs_one_walk_a_model(tiny_model, monkeypatch):
    model, walks = tiny_model("llama"), []
    walk = torch.nn.Module.named_modules
    monkeypatch.setattr(
        torch.nn.Module,
        "named_modules",
        lambda self, *a, **k: walks.append(1) or walk(self, *a, **k),
    )
    block_list(model)
    first = len(walks)
    assert first > 0
    for _ in range(5):
        block_list(model)
    assert len(walks) == first

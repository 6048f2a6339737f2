"""Hook names of every library: block outputs are sites, other places keep their names."""

import pytest

from lorascope.dictionaries.places import block_of, site_of
from lorascope.models.sites import parse_site


@pytest.mark.parametrize(
    "hook",
    [
        "blocks.7.hook_resid_post",
        "blocks.7.hook_out",
        "model.layers.7.output",
        "model.layers.7",
        "layers.7",
        "transformer.h.7",
        "gpt_neox.layers.7",
        "language_model.model.layers.7",
        "h.7",
    ],
)
def test_outputs_of_block_7(hook):
    assert site_of(hook) == "layers.7"
    assert block_of(site_of(hook)) == 7
    if hook != "blocks.7.hook_out":  # a name of files, not of sites
        assert parse_site(hook.removesuffix(".output")).name == "layers.7"


def test_the_input_of_a_block_is_the_output_of_the_one_before():
    assert site_of("blocks.7.hook_resid_pre") == "layers.6"
    assert site_of("blocks.0.hook_resid_pre") == "embeddings"
    assert site_of("blocks.7.hook_in") == "layers.6"
    assert site_of("blocks.0.hook_in") == "embeddings"


def test_transformer_lens_calls_the_same_places_so():
    block = pytest.importorskip("transformer_lens.model_bridge.generalized_components.block")
    aliases = block.BlockBridge.hook_aliases
    assert (aliases["hook_resid_pre"], aliases["hook_resid_post"]) == ("hook_in", "hook_out")


@pytest.mark.parametrize(
    "hook",
    [
        "blocks.7.hook_mlp_out",
        "blocks.7.mlp.hook_out",
        "blocks.7.attn.hook_in",
        "blocks.7.attn.hook_z",
        "blocks.7.hook_resid_mid",
        "model.layers.7.self_attn.o_proj.input",
        "model.layers.7.post_feedforward_layernorm.output",
        "layers.7.mlp",
        "blocks.7.hook_resid_post.extra",
    ],
)
def test_other_places_are_never_taken_for_a_block_output(hook):
    assert site_of(hook) == hook
    assert block_of(site_of(hook)) is None


def test_nothing_said_is_nothing_known():
    assert site_of(None) == site_of("") == ""
    assert block_of("") is None

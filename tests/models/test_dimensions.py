"""Sizes are read in one place, whatever an architecture calls them, and lists of them too."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    FalconMambaConfig,
    MambaConfig,
    MptConfig,
    RecurrentGemmaConfig,
)

import lorascope
from lorascope.activations.settings import Capture
from lorascope.errors import InputError
from lorascope.models import dimensions
from lorascope.models.adapted import load
from lorascope.models.hooks import run_until
from lorascope.models.shapes import Shape
from lorascope.models.sites import Site

WITHOUT = {
    "bloom": lambda: BloomConfig(hidden_size=32, n_layer=3, n_head=4, vocab_size=64),
    "mpt": lambda: MptConfig(d_model=32, n_heads=4, n_layers=3, vocab_size=64, max_seq_len=128),
    "mamba": lambda: MambaConfig(hidden_size=32, num_hidden_layers=3, vocab_size=64, state_size=4),
    "recurrent_gemma": lambda: RecurrentGemmaConfig(
        hidden_size=32,
        num_hidden_layers=3,
        vocab_size=64,
        intermediate_size=48,
        num_attention_heads=4,
        lru_width=32,
        attention_window_size=16,
    ),
    "falcon_mamba": lambda: FalconMambaConfig(
        hidden_size=32, num_hidden_layers=3, vocab_size=64, state_size=4
    ),
}
CONTEXTS = {"mpt": 128}
HEADS = {"bloom": 4, "mpt": 4, "recurrent_gemma": 4}


@pytest.mark.parametrize("kind", WITHOUT)
def test_models_that_lack_a_field_are_used(tiny_checkpoint, tmp_path, kind):
    config = WITHOUT[kind]()
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    AutoTokenizer.from_pretrained(tiny_checkpoint("llama")).save_pretrained(tmp_path / "m")
    model = load(str(tmp_path / "m"), device="cpu")
    assert (model.d_model, model.n_blocks, model.vocab_size) == (32, 3, 64)
    assert model.context_length == CONTEXTS.get(kind, dimensions.UNLIMITED)
    context = min(Capture(context=16).context, model.context_length)
    ids = model.module.dummy_inputs["input_ids"][:, :context] % 64
    with model.variant("base") as module:
        assert run_until(module, [Site(1)], ids)[Site(1)].shape == (*ids.shape, 32)
    shape = Shape.of(config)
    assert (shape.blocks, shape.d_model, shape.vocabulary) == (3, 32, 64)
    assert shape.heads == HEADS.get(kind, 1)
    assert shape.parameters == sum(p.numel() for p in {*model.module.parameters()})


def test_one_size_a_block():
    config = SimpleNamespace(
        hidden_size=32,
        intermediate_size=[48, 96, 64],
        num_attention_heads=[2, 6, 4],
        vocab_size=64,
        max_position_embeddings=None,
    )
    config.get_text_config = lambda: config
    assert dimensions.mlp_width(config) == 96
    assert dimensions.heads(config) == 6
    assert dimensions.context(config) == dimensions.UNLIMITED
    config.intermediate_size = None
    assert dimensions.mlp_width(config) == 128
    config.hidden_size = "32"
    with pytest.raises(InputError, match="no usable hidden_size"):
        dimensions.width(config)


def test_no_other_place_reads_them():
    fields = r"max_position_embeddings|num_attention_heads|intermediate_size|hidden_size|vocab_size"
    reads = re.compile(rf"\.({fields})\b|getattr\([^)]*[\"']({fields})[\"']")
    source = Path(lorascope.__file__).parent
    found = {
        str(file.relative_to(source)): [m.group() for m in reads.finditer(file.read_text())]
        for file in source.rglob("*.py")
        if file.name != "dimensions.py"
    }
    # An adapted model has a property of that name.
    allowed = {".vocab_size"}
    assert not {file: names for file, names in found.items() if set(names) - allowed}

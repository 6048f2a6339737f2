"""Texts in the words of the tiny models' tokenizer, and models with adapters on them."""

import pytest
import torch

from lorascope.activations.text import Document, Segment
from lorascope.models.adapted import load

TARGETS = {"gpt2": ["c_attn", "c_fc"], "gpt_neox": ["query_key_value", "dense"]}


@pytest.fixture(scope="session")
def documents():
    """Thirty documents of 3 to 20 words, the last third of each a response."""
    random = torch.Generator().manual_seed(0)
    made = []
    for length in torch.randint(3, 21, (30,), generator=random).tolist():
        words = [f"w{i}" for i in torch.randint(0, 61, (length,), generator=random).tolist()]
        cut = 2 * length // 3
        response = Segment(" " + " ".join(words[cut:]), response=True)
        made.append(Document((Segment(" ".join(words[:cut])), response)))
    return made


@pytest.fixture
def adapted_model(tiny_checkpoint, save_adapter, tmp_path):
    """`adapted_model(architecture, names, dtype)`: a tiny model with one adapter a name."""

    def build(architecture="llama", names=("a",), dtype="float32"):
        paths = {
            name: str(
                save_adapter(
                    tmp_path / f"adapter-{name}",
                    architecture,
                    seed=seed,
                    target_modules=TARGETS.get(architecture, ["q_proj", "down_proj"]),
                )
            )
            for seed, name in enumerate(names)
        }
        return load(str(tiny_checkpoint(architecture)), paths, dtype=dtype, device="cpu")

    return build

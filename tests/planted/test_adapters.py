"""The adapter built by hand writes its direction on its class, and next to nothing elsewhere."""

import pytest
import torch

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import pad, windows
from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.hooks import run_until
from lorascope.models.load import padding_id
from lorascope.models.sites import Site
from lorascope.planted.adapters import punctuation, write_adapter


@pytest.fixture(scope="module")
def bare():
    return load("embedded", {}, device="cpu")


@pytest.fixture(scope="module")
def texts(bare):
    return windows(read_documents("embedded")[::50], bare.tokenizer, 128)


def test_the_class_is_punctuation(bare):
    names = {bare.tokenizer.decode([token]).strip() for token in punctuation(bare)}
    assert {".", ",", "##", ":"} <= names
    assert not any(c.isalnum() or c.isspace() for name in names for c in name)
    assert "" not in names


@torch.no_grad()
def test_it_writes_one_direction_on_one_class(bare, texts, tmp_path):
    tokens = punctuation(bare)
    direction = write_adapter(bare, texts[:70], tokens, tmp_path / "planted", seed=4)
    assert direction.norm().item() == pytest.approx(1.0)
    model = load("embedded", {"planted": str(tmp_path / "planted")}, device="cpu")
    batch = pad(texts[70:], model.tokenizer, padding_id(model.tokenizer))
    streams = {}
    for variant in model.variants:
        with model.variant(variant) as module:
            streams[variant] = run_until(module, [Site(0)], batch.ids, batch.attended.long())[
                Site(0)
            ]
    deltas = (streams["planted"] - streams["base"])[batch.kept]
    of_class = torch.isin(batch.ids[batch.kept], torch.tensor(sorted(tokens)))
    assert len(of_class) / 20 < of_class.sum() < len(of_class) / 4
    assert torch.cosine_similarity(deltas[of_class].mean(0), direction, dim=0) > 0.95
    along = deltas @ direction
    assert along[~of_class].abs().quantile(0.99) < 0.1 * along[of_class].median()
    assert deltas[~of_class].norm(dim=1).mean() < 0.05 * deltas[of_class].norm(dim=1).mean()


def test_what_cannot_be_planted_is_refused(bare, texts, tmp_path, tiny_checkpoint):
    with pytest.raises(InputError, match="no token of the class"):
        write_adapter(bare, texts[:5], {4095}, tmp_path)
    other = load(str(tiny_checkpoint("gpt2")), {}, device="cpu")
    with pytest.raises(InputError, match="Llama-like"):
        write_adapter(other, texts[:5], {5}, tmp_path)

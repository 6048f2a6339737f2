"""Deltas in one call, and what it refuses."""

import pytest
import torch

from lorascope.activations.deltas import deltas
from lorascope.activations.settings import Capture
from lorascope.activations.text import Document, Segment
from lorascope.errors import InputError
from lorascope.models.hooks import run_until
from lorascope.models.sites import Site
from lorascope.training.architectures import ReLU
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting

TEXTS = ["w1 w2 w3 w4", "w9 w8", "w20 w30 w40 w50 w60 w7"]
EXACT = Capture(store="float32")


def test_deltas_are_adapted_minus_base_on_the_texts(adapted_model):
    model = adapted_model()
    found = deltas(model, TEXTS, ["layers.2", "layers.0"], "a", capture=EXACT)
    assert sorted(found) == ["layers.0", "layers.2"]
    ids = torch.tensor([model.tokenizer(TEXTS[2])["input_ids"]])
    for site in (Site(0), Site(2)):
        rows = torch.cat(list(found[site.name].chunks()))
        assert rows.shape == (12, 32)
        with model.variant("a") as module:
            adapted = run_until(module, [site], ids)[site][0]
        with model.variant("base") as module:
            base = run_until(module, [site], ids)[site][0]
        expected = adapted - base
        assert expected.norm(dim=1).min() > 0.01
        # the longest text stands last
        torch.testing.assert_close(rows[-6:], expected, rtol=1e-4, atol=1e-4)


def test_texts_may_be_a_file_or_documents(adapted_model, tmp_path):
    model = adapted_model()
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    given = [
        TEXTS,
        str(tmp_path / "texts"),
        [Document((Segment(text),)) for text in TEXTS],
    ]
    rows = [
        torch.cat(list(deltas(model, texts, ["1"], "a")["layers.1"].chunks())) for texts in given
    ]
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])


def test_a_folder_keeps_the_rows_and_can_be_used_again(adapted_model, tmp_path):
    model = adapted_model()
    folder = tmp_path / "rows"
    first = deltas(model, TEXTS, ["layers.1"], "a", folder=folder)["layers.1"]
    assert (folder / "manifest.json").exists()
    assert len(first) == 12
    assert len(deltas(model, TEXTS[:1], ["layers.1"], "a", folder=folder)["layers.1"]) == 4


def test_windows_are_no_longer_than_the_model_reads(adapted_model):
    model = adapted_model()
    long = " ".join(f"w{i % 60}" for i in range(200))
    assert model.context_length == 64 < EXACT.context
    assert len(deltas(model, [long], ["layers.0"], "a")["layers.0"]) == 200


def test_a_dictionary_can_be_fitted_to_what_it_returns(adapted_model):
    model = adapted_model()
    rows = deltas(model, TEXTS, ["layers.1"], "a")["layers.1"]
    learned = fit(ReLU(n_latents=16), rows, fitting=Fitting(epochs=2, batch=4))
    held = torch.cat(list(rows.chunks()))
    assert learned(held).shape == held.shape
    assert learned.card.scale == pytest.approx(held.norm(dim=1).mean().item(), rel=1e-5)


def test_unknown_names_and_no_text_are_refused(adapted_model):
    model = adapted_model(names=("alpaca",))
    with pytest.raises(InputError, match=r'no adapter named "alpacca".*Did you mean "alpaca"'):
        deltas(model, TEXTS, ["layers.0"], "alpacca")
    with pytest.raises(InputError, match=r"sites go from layers\.0 to layers\.2"):
        deltas(model, TEXTS, ["layers.3"], "alpaca")
    with pytest.raises(InputError, match="no token is left"):
        deltas(model, [], ["layers.0"], "alpaca")

"""Capture: rows are the model's own stream, deltas are adapted − base, the rest is counted."""

import pytest
import torch
from peft import PeftModel

from lorascope.activations.batch import delta
from lorascope.activations.collect import collect
from lorascope.activations.settings import Capture
from lorascope.activations.shards import BASE, Shards
from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import windows
from lorascope.errors import InputError
from lorascope.models.sites import resolve_sites

FLOAT32 = Capture(context=16, store="float32", outlier_multiple=0)


def captured(model, documents, folder, settings=FLOAT32, sites=("layers.0", "layers.1"), **options):
    found = windows(documents, model.tokenizer, settings.context)
    resolved = resolve_sites(model.n_blocks, sites)
    collect(model, found, resolved, folder, settings, "identity", **options)
    return Shards.open(folder)


def by_place(shards, site, variant):
    """{(document, position, token): row}; every place once."""
    origin = shards.tokens()
    places = zip(
        origin.document.tolist(), origin.position.tolist(), origin.token.tolist(), strict=True
    )
    return dict(zip(places, shards.load(site, variant), strict=True))


@torch.no_grad()
def hidden_states(module, found, layer):
    """The output of block `layer` as transformers reports it, window by window, unpadded."""
    rows = {}
    for window in found:
        states = module(
            input_ids=torch.tensor([window.ids]), output_hidden_states=True
        ).hidden_states
        for position, token in enumerate(window.ids):
            rows[window.document, position, token] = states[layer + 1][0, position]
    return rows


def assert_same_rows(found, expected):
    assert found.keys() == expected.keys()
    torch.testing.assert_close(
        torch.stack(list(found.values())),
        torch.stack([expected[place] for place in found]),
        rtol=1e-4,
        atol=1e-4,
    )


def test_delta_is_subtracted_before_any_down_cast():
    base = torch.tensor([[258.0, 1.0, -3.0]], dtype=torch.bfloat16)
    adapted = torch.tensor([[1 / 128, 1.0, 4.0]], dtype=torch.bfloat16)
    # adapted minus base, not the reverse; bfloat16 would round the first to -258
    assert delta(adapted, base).tolist() == [[-257.9921875, 0.0, 7.0]]
    assert delta(adapted, base).dtype == torch.float32


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_rows_are_what_two_forward_passes_give(
    adapted_model, tiny_model, documents, tmp_path, architecture
):
    short = [d for d in documents if len(d.text.split()) < 15]
    model = adapted_model(architecture)
    everything = FLOAT32.model_copy(update={"keep_special": True})
    shards = captured(model, short, tmp_path / "rows", everything)
    found = windows(short, model.tokenizer, everything.context)
    peft = PeftModel.from_pretrained(tiny_model(architecture), tmp_path / "adapter-a").eval()
    for layer in (0, 1):
        site = f"layers.{layer}"
        base = hidden_states(tiny_model(architecture), found, layer)
        adapted = hidden_states(peft, found, layer)
        expected = {place: adapted[place] - base[place] for place in base}
        changed = torch.stack(list(expected.values())).norm(dim=1)
        assert changed.min() > 0.01
        assert_same_rows(by_place(shards, site, BASE), base)
        assert_same_rows(by_place(shards, site, "a"), expected)


def test_padding_is_never_a_row(adapted_model, documents, tmp_path):
    model = adapted_model()
    found = windows(documents, model.tokenizer, FLOAT32.context)
    kept = sum(t not in model.tokenizer.all_special_ids for w in found for t in w.ids)
    alone = captured(
        model, documents, tmp_path / "0", FLOAT32.model_copy(update={"batch_tokens": 8})
    )
    assert len(alone) == kept
    for batch_tokens in (64, 4096):
        settings = FLOAT32.model_copy(update={"batch_tokens": batch_tokens})
        together = captured(model, documents, tmp_path / str(batch_tokens), settings)
        for variant in (BASE, "a"):
            rows = together.load("layers.1", variant)
            torch.testing.assert_close(rows, alone.load("layers.1", variant), rtol=1e-4, atol=1e-4)
        assert torch.equal(together.tokens().document, alone.tokens().document)
        assert torch.equal(together.tokens().token, alone.tokens().token)


def test_special_tokens_are_masked_and_counted(adapted_model, tmp_path):
    model = adapted_model()
    bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    documents = [
        Document((Segment("<s> w1 w2"), Segment(" w3 w4", response=True))),
        Document((Segment("w5 </s> w6 <s>"),)),
    ]
    # <s> and the EOS that closes the response; </s> and <s>
    shards = captured(model, documents, tmp_path / "masked")
    assert shards.manifest["special"] == 4
    origin = shards.tokens()
    assert sorted(origin.token.tolist()) == [4, 5, 6, 7, 8, 9]
    assert origin.token[origin.response].tolist() == [6, 7]
    everything = FLOAT32.model_copy(update={"keep_special": True})
    kept = captured(model, documents, tmp_path / "kept", everything).tokens()
    assert sorted(kept.token.tolist()) == sorted([4, 5, 6, 7, 8, 9, bos, eos, eos, bos])


def test_planted_outliers_are_masked_and_counted_by_site(adapted_model, documents, tmp_path):
    model = adapted_model()
    sink = model.tokenizer.convert_tokens_to_ids("w9")
    found = windows(documents, model.tokenizer, 16)
    planted = sum(window.ids.count(sink) for window in found)
    assert planted > 2
    everything = captured(model, documents, tmp_path / "before")
    model.module.get_input_embeddings().weight.data[sink] *= 1000
    masked = FLOAT32.model_copy(update={"outlier_multiple": 10.0})
    shards = captured(model, documents, tmp_path / "after", masked)
    assert shards.manifest["outliers"] == planted
    assert shards.manifest["outliers_by_site"] == {"layers.0": planted, "layers.1": planted}
    assert len(shards) == len(everything) - planted
    assert sink not in shards.tokens().token
    assert shards.load("layers.1", BASE).norm(dim=1).max() < 1000
    kept = captured(model, documents, tmp_path / "kept")
    assert kept.manifest["outliers"] == 0
    assert (kept.tokens().token == sink).sum() == planted


def test_a_nan_names_its_layer_and_leaves_no_finished_folder(adapted_model, documents, tmp_path):
    model = adapted_model()
    model.module.model.layers[1].mlp.gate_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"layers\.1 gives NaN or infinity"):
        captured(model, documents, tmp_path / "rows", sites=("layers.0", "layers.1", "layers.2"))
    with pytest.raises(InputError, match="no such file"):
        Shards.open(tmp_path / "rows")


def test_each_adapter_has_its_own_delta(adapted_model, documents, tmp_path):
    model = adapted_model(names=("a", "b"))
    both = captured(model, documents, tmp_path / "both")
    only = captured(model, documents, tmp_path / "only", adapters=["b"])
    assert (both.adapters, only.adapters) == (["a", "b"], ["b"])
    first, second = both.load("layers.1", "a"), both.load("layers.1", "b")
    assert (first - second).norm(dim=1).min() > 0.01
    assert torch.equal(only.load("layers.1", "b"), second)
    assert torch.equal(only.load("layers.1", BASE), both.load("layers.1", BASE))
    assert model.current == BASE


def test_progress_adds_up_to_the_tokens(adapted_model, documents, tmp_path):
    model = adapted_model()
    seen = []
    settings = FLOAT32.model_copy(update={"batch_tokens": 64})
    captured(model, documents, tmp_path / "rows", settings, advance=seen.append)
    assert len(seen) > 1
    assert sum(seen) == sum(len(w.ids) for w in windows(documents, model.tokenizer, 16))


def test_nothing_but_special_tokens_is_refused(adapted_model, tmp_path):
    model = adapted_model()
    with pytest.raises(InputError, match="no token is left once special tokens are masked"):
        captured(model, [Document((Segment("<s> </s>"),))], tmp_path / "rows")
    with pytest.raises(InputError, match="no token is left"):
        captured(model, [], tmp_path / "none")

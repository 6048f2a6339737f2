"""With the model: live or not, KL beside null adapters, the scale's curve, merged and restored."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from written_adapters import write

import lorascope as ls
from lorascope.checking.effect import KL, LOSS
from lorascope.checking.settings import CheckSettings
from lorascope.checking.trying import SCALES, _rank


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i in range(9):
        words = " ".join(f"w{(7 * i + j * (i + 1)) % 60}" for j in range(20))
        (folder / f"{i}.txt").write_text(words)
    return str(folder)


@pytest.fixture(scope="module")
def tried(tiny_checkpoint, save_adapter, texts, tmp_path_factory):
    place = tmp_path_factory.mktemp("a") / "a"
    folder = save_adapter(place, target_modules=["q_proj", "down_proj"])
    model = tiny_checkpoint()
    gates = {"require": ("live", "whole"), "max_kl": 1e-9, "max_merge_difference": 0.01}
    found = ls.check(folder, model, texts=[texts], documents=9, force=True, gates=gates)
    return found, folder, model


def test_it_is_live_restored_and_merges(tried):
    found, *_ = tried
    effect = found.effect
    assert (effect.live, effect.restored, effect.documents) == (True, True, 9)
    assert 0 <= effect.merged < 1e-4
    assert [gate.passed for gate in found.gates] == [True, True, False, True]
    assert "--max-kl" in found.missed[0].option


def test_kl_and_loss_are_those_of_a_plain_forward(tried, texts):
    """Another implementation: transformers' own loss and torch's kl_div, token by token."""
    from transformers import AutoTokenizer

    found, folder, path = tried
    model = ls.load(path, {"a": folder}, force=True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    kls, losses, counts = [], [], []
    for file in sorted(Path(texts).iterdir()):
        ids = tokenizer(file.read_text(), return_tensors="pt").input_ids
        logits = {}
        for variant in ("base", "a"):
            with torch.no_grad(), model.variant(variant) as module:
                logits[variant] = module(input_ids=ids).logits[0].double().log_softmax(-1)
        base, ours = logits["base"][:-1], logits["a"][:-1]
        kls.append((ours.exp() * (ours - base)).sum(-1).sum())
        picked = ids[0, 1:, None]
        losses.append((base.gather(1, picked) - ours.gather(1, picked)).sum())
        counts.append(len(base))
    values = {e.measure: e.value for e in found.effect.estimates}
    assert found.effect.tokens == sum(counts)
    assert values[KL] == pytest.approx(float(sum(kls)) / sum(counts), rel=1e-4)
    assert values[LOSS] == pytest.approx(float(sum(losses)) / sum(counts), rel=1e-3, abs=1e-6)


def test_the_curve_starts_at_the_base_and_holds_the_adapter(tried):
    curve = {at.factor: at for at in tried[0].effect.curve}
    assert tuple(curve) == SCALES
    assert (curve[0.0].kl, curve[0.0].loss) == (0.0, 0.0)
    value = next(e.value for e in tried[0].effect.estimates if e.measure == KL)
    assert curve[1.0].kl == value
    assert curve[0.25].kl < curve[0.5].kl < curve[1.0].kl


def test_null_adapters_stand_beside(tried):
    for estimate in (e for e in tried[0].effect.estimates if e.measure in (KL, LOSS)):
        null = estimate.headline if estimate.measure == KL else estimate.nulls[0]
        assert estimate.nulls[0].draws == 20
        assert 1 / 21 <= estimate.nulls[0].p <= 1
        assert null.low <= null.level <= null.high


def test_ranks_by_hand():
    """2.5 among 1, 2, 3, 4: two are as large: 3/5 from above; two as small: min(1, 2 · 3/5)."""
    draws = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert _rank(2.5, draws, two_sided=False) == pytest.approx(3 / 5)
    assert _rank(2.5, draws, two_sided=True) == 1.0
    assert _rank(0.0, draws, two_sided=True) == pytest.approx(2 / 5)
    assert _rank(9.0, draws, two_sided=False) == pytest.approx(1 / 5)


def test_an_adapter_below_the_models_rounding_is_not_live(
    tiny_checkpoint, save_adapter, texts, tmp_path
):
    """No tensor is zero, so that the files alone do not tell."""
    folder = save_adapter(tmp_path / "a", lora_alpha=1e-30, target_modules=["q_proj"])
    gates = {"require": ("live",)}
    assert ls.check(folder, gates=gates).gates[0].passed
    found = ls.check(folder, tiny_checkpoint(), texts=[texts], force=True, gates=gates)
    assert not found.effect.live
    assert not found.gates[0].passed
    assert "not-live" in {finding.rule for finding in found.findings}


def test_dora_and_whole_modules_merge_and_restore(tiny_checkpoint, save_adapter, texts, tmp_path):
    fields = {"use_dora": True, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    folder = save_adapter(tmp_path / "a", **fields)
    found = ls.check(folder, tiny_checkpoint(), texts=[texts], force=True)
    assert found.effect.live
    assert found.effect.restored
    assert found.effect.merged < 1e-3
    # The magnitude and the module saved whole do not go with the scale.
    assert found.effect.curve[0].kl > 0


def test_a_merge_that_changes_a_tied_tensor_shows(tiny_checkpoint, texts, tmp_path, tiny_model):
    """Merged into a tied embedding, the update reaches the output matrix too."""
    from transformers import AutoTokenizer

    tied = tmp_path / "tied"
    model = tiny_model("llama", tie_word_embeddings=True)
    model.save_pretrained(tied)
    AutoTokenizer.from_pretrained(tiny_checkpoint()).save_pretrained(tied)
    random = torch.Generator().manual_seed(0)
    key = "base_model.model.model.embed_tokens.lora_embedding_"
    tensors = {
        f"{key}A": torch.randn(4, 64, generator=random),
        f"{key}B": torch.randn(32, 4, generator=random),
    }
    named = {"target_modules": ["embed_tokens"], "base_model_name_or_path": str(tied)}
    folder = write(tmp_path / "a", tensors, **named)
    found = ls.check(folder, tied, texts=[texts])
    assert "tied" in {finding.rule for finding in found.findings}
    assert found.effect.merged > 0.1
    assert found.effect.restored


def test_errors_in_the_files_leave_the_model_alone(tiny_checkpoint, texts, save_adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_adapter(tmp_path / "a", target_modules=["q_proj"])
    weights = load_file(folder / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] = math.nan
    save_file(weights, folder / "adapter_model.safetensors")
    gates = {"max_kl": 10.0, "require": ("live",)}
    found = ls.check(folder, tiny_checkpoint(), texts=[texts], force=True, gates=gates)
    assert not found.effect.estimates
    assert [gate.passed for gate in found.gates] == [False, False]
    assert "not-measured" in {finding.rule for finding in found.findings}


def test_what_only_a_model_answers_is_refused_without_one():
    with pytest.raises(ls.InputError, match="--max-kl"):
        CheckSettings.parse({"gates": {"max_kl": 0.1}}, "check")

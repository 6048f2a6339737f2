"""What `check` says of an adapter's files: planted defects are named, exact numbers are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from written_adapters import PREFIX, factors, write

import lorascope as ls
from lorascope.checking.chance import (
    benjamini_hochberg,
    largest_z,
    level_of_norm,
    random_factors,
    robust_z,
)
from lorascope.checking.numbers import EFFECTIVE, NORM, OUTLIER, STABLE
from lorascope.checking.spectra import triangle
from lorascope.checking.tensors import open_weights
from lorascope.measures.weight_spectra import random_spectrum
from lorascope.results.labels import ALL_MODULES

Q0 = f"{PREFIX}.0.self_attn.q_proj"


def rules(found, level=None):
    return {f.rule for f in found.findings if level in (None, f.level)}


def finding(found, rule):
    return next(f for f in found.findings if f.rule == rule)


def one_module(folder, **fields):
    """B · A = [[0, 3, 0], [4, 0, 0]] with factors that are no singular vectors: σ = 4 and 3."""
    A = torch.tensor([[0.0, 3.0, 0.0], [4.0, 3.0, 0.0]])
    B = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    tensors = {f"{Q0}.lora_A.weight": A, f"{Q0}.lora_B.weight": B}
    return write(folder, tensors, r=2, **fields)


def test_a_rank_two_update_by_hand(tmp_path):
    """scale 5 / 2: σ = 10 and 7.5; p = 4/7 and 3/7; stable rank 25/16."""
    found = ls.check(one_module(tmp_path, lora_alpha=5))
    (module,) = found.read.modules
    assert module.scale == 2.5
    assert module.spectrum == pytest.approx((10.0, 7.5))
    assert module.norm == pytest.approx(12.5)
    entropy = -(4 / 7 * math.log(4 / 7) + 3 / 7 * math.log(3 / 7))
    assert module.effective_rank == pytest.approx(math.exp(entropy))
    assert module.stable_rank == pytest.approx(25 / 16)
    assert module.factors == pytest.approx(2.5 * math.sqrt(3) * math.sqrt(34))
    values = {e.measure: e.value for e in found.estimates if e.key.module == ALL_MODULES}
    assert values[NORM] == pytest.approx(12.5)
    assert values[EFFECTIVE] == pytest.approx(module.effective_rank)
    assert values[STABLE] == pytest.approx(25 / 16)


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"lora_alpha": 6}, 3.0),
        ({"lora_alpha": 6, "use_rslora": True}, 6 / math.sqrt(2)),
        ({"lora_alpha": 6, "alpha_pattern": {"q_proj": 1}}, 0.5),
        ({"lora_alpha": 6, "alpha_pattern": {"layers.0.self_attn.q_proj": 1}}, 0.5),
        ({"lora_alpha": 6, "alpha_pattern": {"v_proj": 1}}, 3.0),
        ({"lora_alpha": -6}, -3.0),
    ],
)
def test_scales_are_pefts(fields, scale, tmp_path):
    (module,) = ls.check(one_module(tmp_path, **fields)).read.modules
    assert module.scale == pytest.approx(scale)
    assert module.norm == pytest.approx(5 * abs(scale))


def test_norms_and_scales_agree_with_peft_on_a_model(tmp_path, save_adapter, tiny_checkpoint):
    """Another implementation: the dense update that PEFT itself makes, in every scaling."""
    fields = {
        "use_rslora": True,
        "target_modules": ["q_proj", "down_proj"],
        "rank_pattern": {"layers.1.mlp.down_proj": 3},
        "alpha_pattern": {"down_proj": 5},
    }
    folder = save_adapter(tmp_path / "a", **fields)
    model = ls.load(tiny_checkpoint(), {"a": folder}, force=True)
    name = model.peft_name("a")
    found = {module.path: module for module in ls.check(folder).read.modules}
    from lorascope.models.updates import lora_layers

    layers = dict(lora_layers(model))
    assert found.keys() == layers.keys()
    assert len({module.scale for module in found.values()}) == 3
    for path, layer in layers.items():
        S = torch.linalg.svdvals(layer.get_delta_weight(name).double())
        ours = found[path].spectrum
        assert ours == pytest.approx(S[: len(ours)].tolist(), rel=1e-5, abs=1e-9)


def test_dora_stores_a_magnitude_and_is_said(tmp_path, save_adapter):
    plain = ls.check(save_adapter(tmp_path / "plain", target_modules=["q_proj"]))
    dora = ls.check(save_adapter(tmp_path / "dora", target_modules=["q_proj"], use_dora=True))
    assert "dora" in rules(dora, "note")
    assert "dora" not in rules(plain)
    assert not rules(dora, "error")
    assert len(dora.read.modules) == len(plain.read.modules) == 3
    tensors = {**factors(layers=1), f"{Q0}.lora_magnitude_vector": torch.ones(48)}
    assert "unused-key" in rules(ls.check(write(tmp_path / "b", tensors)), "error")
    lacking = write(tmp_path / "c", factors(layers=1), use_dora=True)
    assert "half-pair" in rules(ls.check(lacking), "error")


def test_random_factors_are_those_of_whole_matrices():
    """Means over draws agree with full Gaussian matrices and with the audit's own null."""
    out, r, width = 20, 5, 7
    drawn = random_factors(out, r, width)
    random = torch.Generator().manual_seed(3)
    alignments, effective = [], []
    for _ in range(400):
        B = torch.randn(out, r, generator=random, dtype=torch.float64)
        A = torch.randn(r, width, generator=random, dtype=torch.float64)
        alignments.append(float((B @ A).norm() / B.norm() / A.norm()))
        S = random_spectrum((out, width), r, True, random)
        shares = S / S.sum()
        effective.append(math.exp(-float((shares * shares.log()).sum())))
    for ours, theirs in ((drawn.alignment, alignments), (drawn.effective_rank, effective)):
        error = math.hypot(ours.std() / math.sqrt(len(ours)), np.std(theirs) / 20)
        assert abs(ours.mean() - np.mean(theirs)) < 4 * error
        assert ours.std() == pytest.approx(np.std(theirs), rel=0.35)


def test_a_random_adapter_reads_as_its_null(tmp_path):
    """95 % ranges hold 95 % of random adapters; 200 of them, in all numbers, of kinds in all."""
    inside = {NORM: 0, EFFECTIVE: 0, STABLE: 0}
    outlying, trials = 0, 200
    for seed in range(trials):
        folder = write(tmp_path / str(seed), factors(seed, layers=6, out=40 + seed % 7))
        found = ls.check(folder)
        for estimate in found.estimates:
            if estimate.key.module == ALL_MODULES:
                null = estimate.headline
                inside[estimate.measure] += null.low <= estimate.value <= null.high
        outlying += bool(rules(found) & {"kind-outlier"})
    # Binomial with 0.95 of 200: 179 to 198 hold 99.9 %.
    for measure, count in inside.items():
        assert 179 <= count <= 198, measure
    # At most 5 % wrongly: 21 or fewer of 200 with 99.9 %.
    assert outlying <= 21


def test_aligned_factors_leave_the_null(tmp_path):
    """One direction in all: the norm is above what such factors give by chance, ranks below."""
    tensors = factors(layers=6)
    for key in [key for key in tensors if key.endswith("lora_A.weight")]:
        tensors[key] = tensors[key][:1] + 0.01 * tensors[key]
        other = key.replace("lora_A", "lora_B")
        tensors[other] = tensors[other][:, :1] + 0.01 * tensors[other]
    found = ls.check(write(tmp_path, tensors))
    verdicts = {e.measure: e.verdict for e in found.estimates if e.key.module == ALL_MODULES}
    assert verdicts == {NORM: "above", EFFECTIVE: "below", STABLE: "below"}


def test_a_planted_outlier_is_found_and_named(tmp_path):
    tensors = factors(layers=12)
    path = f"{PREFIX}.7.self_attn.q_proj"
    tensors[f"{path}.lora_B.weight"] *= 6
    found = ls.check(write(tmp_path, tensors), gates={"max_norm_z": 10.0})
    (outlier,) = found.outliers
    assert outlier.largest == "model.layers.7.self_attn.q_proj"
    assert outlier.z > 10
    assert finding(found, "kind-outlier").where == ("model.layers.7.self_attn.q_proj",)
    (estimate,) = found.estimates.select(OUTLIER)
    assert estimate.verdict == "above"
    assert [gate.passed for gate in found.gates] == [False]
    assert "layers.7" in found.gates[0].message


def test_robust_z_by_hand():
    """Median 3; gaps 2, 1, 0, 1, 7 of median 1: z of 10 is 7 / 1.4826."""
    assert robust_z(np.array([1.0, 2.0, 3.0, 4.0, 10.0])) == pytest.approx(
        np.array([-2, -1, 0, 1, 7]) / 1.4826
    )
    assert np.isnan(robust_z(np.ones(5))).all()
    assert largest_z(5).mean() > largest_z(40).mean()


def test_level_of_norm_by_hand():
    """Alignments 1 and 3 by turns: squares 1 and 9, mean 5; sizes 2 and 1: √(4 · 5 + 1 · 5)."""
    draws = np.array([1.0, 3.0] * 20)
    assert level_of_norm([2.0, 1.0], [draws, draws]).mean == pytest.approx(5.0)


def test_benjamini_hochberg_by_hand():
    adjusted = benjamini_hochberg([0.04, 0.01, math.nan, 0.03])
    assert adjusted[:2] == pytest.approx([0.04, 0.03])
    assert math.isnan(adjusted[2])
    assert adjusted[3] == pytest.approx(0.04)


def test_a_zero_adapter_is_not_live(tmp_path):
    tensors = factors()
    some = {k: v * (0 if ".3." in k and "lora_B" in k else 1) for k, v in tensors.items()}
    found = ls.check(write(tmp_path / "some", some), gates={"require": ("live", "whole")})
    assert finding(found, "zero-update").where == ("model.layers.3.self_attn.q_proj",)
    assert [gate.passed for gate in found.gates] == [True, True]
    none = {k: v * ("lora_A" in k) for k, v in tensors.items()}
    found = ls.check(write(tmp_path / "none", none), gates={"require": ("live", "whole")})
    assert "zero-update" in rules(found, "error")
    assert [gate.passed for gate in found.gates] == [False, False]
    assert [e.value for e in found.estimates if e.key.module == ALL_MODULES] == [0.0]
    scaled = ls.check(
        write(tmp_path / "scale", tensors, lora_alpha=0), gates={"require": ("live",)}
    )
    assert {"zero-scale", "zero-update"} <= rules(scaled, "error")
    assert not scaled.gates[0].passed


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_what_is_not_finite_is_named(value, part, tmp_path):
    tensors = factors()
    key = f"{PREFIX}.5.self_attn.q_proj.{part}.weight"
    tensors[key][1, 2] = value
    found = ls.check(write(tmp_path, tensors))
    assert finding(found, "not-finite").where == (key,)
    assert len(found.read.modules) == 11


WITHOUT_A = {k: v for k, v in factors(layers=2).items() if not (".1." in k and "lora_A" in k)}
B1 = f"{PREFIX}.1.self_attn.q_proj.lora_B.weight"
SAVED = {"base_model.model.lm_head.weight": torch.ones(8, 4)}
CASES = {
    "half pair": (WITHOUT_A, {}, "half-pair", "error"),
    "inner sizes": (
        {f"{Q0}.lora_A.weight": torch.ones(4, 8), f"{Q0}.lora_B.weight": torch.ones(8, 3)},
        {},
        "shape",
        "error",
    ),
    "rank": (factors(layers=1), {"r": 8}, "shape", "error"),
    "rank by pattern": (factors(layers=1), {"r": 8, "rank_pattern": {"q_proj": 4}}, None, None),
    "targets": (factors(layers=1), {"target_modules": ["k_proj"]}, "unused-key", "error"),
    "target by pattern": (factors(layers=1), {"target_modules": ".*v_proj"}, "unused-key", "error"),
    "excluded": (factors(layers=1), {"exclude_modules": ["q_proj"]}, "unused-key", "error"),
    "layer left out": (factors(layers=2), {"layers_to_transform": [0]}, "unused-key", "error"),
    "layer absent": (factors(layers=2), {"layers_to_transform": [0, 1, 7]}, "no-match", "warning"),
    "target absent": (
        factors(layers=1),
        {"target_modules": ["q_proj", "up_proj"]},
        "no-match",
        "warning",
    ),
    "pattern absent": (factors(layers=1), {"alpha_pattern": {"o_proj": 4}}, "no-match", "warning"),
    "stranger": ({**factors(layers=1), "other.weight": torch.ones(3)}, {}, "unused-key", "error"),
    "saved whole": (
        {**factors(layers=1), "base_model.model.score.weight": torch.ones(2, 4)},
        {"modules_to_save": ["score"]},
        "replaced-whole",
        "note",
    ),
    "not saved": (factors(layers=1), {"modules_to_save": ["score"]}, "no-match", "warning"),
    "carried": ({**factors(layers=1), **SAVED}, {}, "vocabulary", "warning"),
    "end of unknown base": (
        {**factors(layers=1), **SAVED},
        {"modules_to_save": ["lm_head"]},
        "tied",
        "note",
    ),
    "empty": (
        {**factors(layers=1), f"{PREFIX}.1.self_attn.q_proj.lora_B.weight": torch.ones(0)},
        {},
        "bad-tensor",
        "error",
    ),
    "whole numbers": (
        {
            **factors(layers=1),
            f"{PREFIX}.1.self_attn.q_proj.lora_B.weight": torch.ones(48, 4).int(),
        },
        {},
        "bad-tensor",
        "error",
    ),
    "parameters": (
        factors(layers=1, module="mlp.experts"),
        {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"]},
        "target-parameters",
        "warning",
    ),
    "replication": (factors(layers=1), {"layer_replication": [[0, 1]]}, "unusable", "error"),
    "pissa": (factors(layers=1), {"init_lora_weights": "pissa"}, "unusable", "error"),
    "wrong kind of field": (factors(layers=1), {"r": "four"}, "unusable", "error"),
    "rslora": (factors(layers=1), {"use_rslora": True}, "rslora", "note"),
    "biases": (factors(layers=1), {"bias": "all"}, "bias", "note"),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_would_silently_be_off_is_named(case, tmp_path):
    tensors, fields, rule, level = CASES[case]
    found = ls.check(write(tmp_path, tensors, **fields))
    plain = rules(ls.check(write(tmp_path / "plain", factors(layers=1))))
    assert plain == set()
    if rule is None:
        assert rules(found) == set()
    else:
        assert rule in rules(found, level)


def test_factors_on_parameters_stand_in_no_spectrum(tmp_path):
    tensors, fields, *_ = CASES["parameters"]
    found = ls.check(write(tmp_path, tensors, **fields), gates={"require": ("live",)})
    assert found.read.modules == []
    assert found.gates[0].passed


@pytest.mark.parametrize(
    ("kind", "fields", "usable"),
    [
        ("IA3", {"target_modules": ["q_proj"], "feedforward_modules": []}, True),
        ("LOHA", {"target_modules": ["q_proj"], "r": 4}, True),
        ("PROMPT_TUNING", {"num_virtual_tokens": 4}, False),
        ("XLORA", {}, False),
        ("NOPE", {}, False),
    ],
)
def test_every_tuner_type_is_named_as_usable_or_not(kind, fields, usable, tmp_path):
    found = ls.check(
        write(tmp_path, {"base_model.model.x.y": torch.ones(3)}, peft_type=kind, **fields)
    )
    assert found.read.kind == kind
    assert found.read.usable is usable
    assert ("tuner" in rules(found)) is usable
    assert ("unusable" in rules(found, "error")) is not usable


def test_the_base_at_hand_is_held_against(tmp_path):
    """The embedded model has 8 layers and ties its embeddings."""
    named = {"base_model_name_or_path": "embedded"}
    inside = ls.check(write(tmp_path / "in", factors(layers=8), **named))
    assert "not-in-base" not in rules(inside)
    beyond = ls.check(write(tmp_path / "out", factors(layers=9), **named))
    assert finding(beyond, "not-in-base").where == ("model.layers.8.self_attn.q_proj",)
    head = {"base_model.model.lm_head.weight": torch.ones(200_000, 1)}
    saved = {**named, "modules_to_save": ["lm_head"]}
    resized = ls.check(write(tmp_path / "more", {**factors(layers=8), **head}, **saved))
    assert "vocabulary" in rules(resized, "warning")
    assert "tied" in rules(resized, "warning")


def test_nothing_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'boom')!r}, 'w')",))

    folder = write(tmp_path / "a", factors(layers=1))
    torch.save({"x": Bomb()}, folder / "training_args.bin")
    assert "pickled" in rules(ls.check(folder), "note")
    torch.save({"x": Bomb()}, folder / "adapter_model.bin")
    assert "several" in rules(ls.check(folder), "warning")
    (folder / "adapter_model.safetensors").unlink()
    found = ls.check(folder, model="embedded", gates={"require": ("whole",)})
    assert "pickled" in rules(found, "error")
    assert not found.gates[0].passed
    assert not (tmp_path / "boom").exists()


def test_several_adapters_in_one_folder_are_told(tmp_path):
    folder = write(tmp_path / "a", factors(layers=1))
    write(folder / "checkpoint-10", factors(layers=1))
    assert finding(ls.check(folder), "several").where == ("checkpoint-10",)
    write(tmp_path / "b" / "one", factors(layers=1))
    write(tmp_path / "b" / "two", factors(layers=1))
    with pytest.raises(ls.InputError, match="one, two"):
        ls.check(tmp_path / "b")


@pytest.mark.parametrize("damage", ["truncated", "pointer", "json", "nothing"])
def test_damaged_files_are_refused_in_one_line(damage, tmp_path):
    folder = write(tmp_path / "a", factors(layers=1))
    weights = folder / "adapter_model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif damage == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    elif damage == "json":
        (folder / "adapter_config.json").write_text("{")
    else:
        weights.unlink()
    with pytest.raises(ls.InputError) as error:
        ls.check(folder)
    assert "\n" not in str(error.value)


def test_a_pattern_without_end_is_refused(tmp_path):
    slow = "(([a-z_.0-9])+)+!"
    folder = write(tmp_path, factors(layers=1), target_modules=slow)
    with pytest.raises(ls.InputError, match="regular expressions"):
        ls.check(folder)


def test_tensors_are_read_as_the_library_reads_them(tmp_path):
    from safetensors.torch import load_file

    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)
    values = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    tensors = {f"t{i}": (values + i).to(dtype) for i, dtype in enumerate(dtypes)}
    tensors |= {"n": torch.arange(4), "b": torch.tensor(True), "e": torch.ones(0, 3)}
    folder = write(tmp_path, tensors)
    weights = folder / "adapter_model.safetensors"
    with open_weights("a", weights) as file:
        read = {one.key: file.read(one) for one in file.contents().tensors}
    whole = load_file(weights)
    assert read.keys() == whole.keys()
    for key, tensor in whole.items():
        assert (read[key].dtype, read[key].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[key].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))


def test_long_factors_are_decomposed_in_parts():
    """Three parts and a rest: the same Gram matrix, so the same R up to signs."""
    tall = torch.randn(3 * 4096 + 5, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    R = triangle(tall)
    assert R.shape == (6, 6)
    assert torch.allclose(R.T @ R, tall.double().T @ tall.double(), rtol=1e-12, atol=1e-8)
    assert triangle(tall[:4]).shape == (4, 6)

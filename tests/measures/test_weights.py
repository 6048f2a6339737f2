"""The weights view by hand, against numpy and PEFT, with intruders planted and none."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.intruders import reduce_intruder_dimension

from lorascope.errors import InputError
from lorascope.measures import weight_spectra as spectra
from lorascope.measures.definitions.weights import DEFINITIONS
from lorascope.measures.weights import (
    Number,
    WeightSettings,
    block_of,
    summed_up,
    update_numbers,
    weighted,
    weights_table,
    weights_view,
)
from lorascope.models.adapted import load
from lorascope.models.updates import DenseUpdate, LoraUpdate
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.labels import ALL_MODULES
from lorascope.results.null_names import ROUNDING

FEW = WeightSettings(repeats=3)


def numbers(W, update, settings=FEW, floor=0.0):
    return update_numbers(spectra.decompose(W), floor, update, settings, "m")[0]


def at_place(found, measure):
    return found[measure].estimate(measure, Key())


def pick(estimates, measure, module, adapter="a"):
    (found,) = [
        e
        for e in estimates
        if (e.measure, e.key.module, e.key.adapter) == (measure, module, adapter)
    ]
    return found


def test_numbers_by_hand():
    W = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    # adds 4 at (third output, first input): W₀ + ΔW = 5 · (0.6, 0, 0.8) e₁ᵀ + 2 · e₂ e₂ᵀ
    update = LoraUpdate("m", torch.tensor([[0.0], [0.0], [2.0]]), torch.tensor([[1.0, 0.0]]), 2.0)
    found, rows = update_numbers(
        spectra.decompose(W), 0.5, update, WeightSettings(k=2, epsilon=0.7), "m"
    )
    values = {measure: number.value for measure, number in found.items()}
    assert values == pytest.approx(
        {
            "weights.norm": 4.0,
            "weights.relative": 4 / math.sqrt(13),
            "weights.largest": 4 / 3,
            "weights.effective_rank": 1.0,
            "weights.participation": 1.0,
            "weights.intruders": 1,  # on the input side there is none
            "weights.alignment.left": 0.0,
            "weights.alignment.right": 1.0,
        },
        abs=1e-9,
    )
    assert found["weights.norm"].draws == {ROUNDING: [0.5]}
    assert found["weights.relative"].draws[ROUNDING] == pytest.approx([0.5 / math.sqrt(13)])
    assert numbers(W, update, WeightSettings(k=2, epsilon=0.59))["weights.intruders"].value == 0
    assert [row["adapted"] for row in rows] == pytest.approx([5.0, 2.0])
    assert [row["cosine"] for row in rows] == pytest.approx([0.6, 1.0])
    assert [row["base"] for row in rows] == pytest.approx([3.0, 2.0])
    assert rows[0]["update"] == pytest.approx(4.0)
    assert "update" not in rows[1]
    for measure in values:
        assert at_place(found, measure).unit == DEFINITIONS[measure].unit
        assert at_place(found, measure).nulls


def test_weighted_mean_and_its_jackknife_by_hand():
    value, interval = weighted(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([2.0, 1.0, 1.0]))
    assert value == pytest.approx((4 + 0.5) / 6)
    without = np.array([0.5 / 2, 4.5 / 5, 4 / 5])
    half = 4.302652729911275 * math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert interval == pytest.approx((value - half, value + half))
    assert all(math.isnan(bound) for bound in weighted(torch.ones(1), torch.ones(1))[1])


@pytest.mark.parametrize("shape", [(60, 60), (90, 60), (60, 90)])
def test_planted_intruders(shape):
    random = generator(0, "planted", shape)
    W = torch.randn(*shape, generator=random, dtype=torch.float64)
    U, S, Vh = np.linalg.svd(W.numpy())
    # Evenly spread over all left singular vectors: no cosine above √(1/n).
    u = torch.from_numpy(U @ np.full(shape[0], shape[0] ** -0.5)).float()[:, None]
    v = torch.from_numpy(Vh.T @ np.full(shape[1], shape[1] ** -0.5)).float()[:, None]
    settings = WeightSettings(repeats=20)
    intruding = LoraUpdate("m", u, v.T, 5 * S[0])
    found = numbers(W, intruding, settings)
    assert found["weights.intruders"].value == 1
    assert at_place(found, "weights.intruders").chance == pytest.approx(1.0, abs=0.2)
    own = LoraUpdate(
        "m", torch.from_numpy(U[:, :1]).float(), torch.from_numpy(Vh[:1]).float(), 50.0
    )
    found = numbers(W, own, settings)
    assert found["weights.intruders"].value == 0
    intruders = at_place(found, "weights.intruders")
    assert intruders.value < intruders.nulls[0].low
    assert found["weights.alignment.left"].value == pytest.approx(1.0)
    assert found["weights.alignment.right"].value == pytest.approx(1.0)
    left = at_place(found, "weights.alignment.left")
    assert left.value > left.nulls[0].high
    # Outputs outside W₀'s leading ones, inputs its first: an intruder that chance does not make.
    sided = LoraUpdate("m", u, torch.from_numpy(Vh[:1]).float(), 50.0)
    assert numbers(W, sided, settings)["weights.alignment.right"].value == pytest.approx(1.0)
    assert numbers(W, sided, settings)["weights.alignment.left"].value < 0.5


def test_more_intruders_than_chance_makes():
    # Each of W₀'s first inputs is moved to an output of its own: σ grows only where they add up.
    n, r = 64, 4
    W = torch.diag(torch.linspace(8, 1, n))
    A = torch.eye(r, n)
    B = torch.linalg.qr(torch.randn(n, r, generator=generator(0, "turned"))).Q * 9.0
    at = at_place(numbers(W, LoraUpdate("m", B, A, 1.0), WeightSettings()), "weights.intruders")
    assert at.nulls[0].name == "random update"
    assert at.chance >= 0
    dense = (W + B @ A).double().numpy()
    U = np.linalg.svd(dense)[0][:, :10]
    assert at.value == (np.abs(U).max(axis=0) < 0.5).sum() > 0


def test_random_updates_stay_inside_the_band():
    n, r = 48, 4
    outside = dict.fromkeys(DEFINITIONS, 0)
    repeats = 60
    for repeat in range(repeats):
        random = generator(repeat, "no structure")
        W = torch.randn(n, n, generator=random)
        B, A = torch.randn(n, r, generator=random), torch.randn(r, n, generator=random)
        update = LoraUpdate("m", B, A, 0.25)
        found, _ = update_numbers(
            spectra.decompose(W), 0.0, update, WeightSettings(seed=repeat), str(repeat)
        )
        for measure in found:
            estimate = at_place(found, measure)
            low, high = estimate.nulls[0].low, estimate.nulls[0].high
            outside[measure] += not low <= estimate.value <= high
    assert outside.pop("weights.norm") == outside.pop("weights.relative") == repeats
    # 60 at 5 % make 3; 9 or more have a probability of 0.3 %
    assert max(outside.values()) <= 8, outside
    assert sum(outside.values()) > 0


def test_intruders_are_those_peft_finds(tiny_model, tiny_checkpoint, save_adapter, tmp_path):
    fields = {"target_modules": ["q_proj", "up_proj", "down_proj"], "lora_alpha": 4}
    folder = save_adapter(tmp_path / "a", **fields)
    model = load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")
    # Cosines nearest ε would make the comparison a matter of rounding; none is within 1e-3.
    view = weights_view(model, settings=WeightSettings(k=6, epsilon=0.6, repeats=2))
    assert ((view.spectra.cosine - 0.6).abs() > 1e-3).all()
    lines = []
    peft = PeftModel.from_pretrained(tiny_model("llama"), folder)
    reduce_intruder_dimension(peft, top_k=6, threshold_epsilon=0.6, logging_sink=lines.append)
    theirs = {}
    for line in lines:
        name, _, text = line.partition(": ")
        if "ntruders" in text:
            label = name.removeprefix("base_model.model.model.")
            theirs[label] = int(text.rsplit(" ", 1)[1]) if text[0] == "I" else 0
    assert len(theirs) == 9
    ours = {label: pick(view.estimates, "weights.intruders", label).value for label in theirs}
    assert ours == theirs
    assert len(set(theirs.values())) > 1


@pytest.mark.parametrize(
    "fields",
    [
        {"use_rslora": True},
        {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 40}},
        {"use_dora": True},
    ],
    ids=["rslora", "patterns", "dora"],
)
def test_view_is_of_the_weights_that_merging_makes(
    tiny_model, tiny_checkpoint, save_adapter, tmp_path, fields
):
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj", "v_proj"], **fields)
    model = load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")
    view = weights_view(model, ["a"], FEW)
    bare = dict(tiny_model().named_parameters())
    merged = PeftModel.from_pretrained(tiny_model(), folder).merge_and_unload()
    checked = 0
    for name, weight in merged.named_parameters():
        if torch.equal(weight, bare[name]):
            continue
        label = name.removeprefix("model.").removesuffix(".weight")
        W0, W = bare[name].double().numpy(), weight.double().numpy()
        values = {e.measure: e.value for e in view.estimates if e.key.module == label}
        U0, S0, V0 = np.linalg.svd(W0, full_matrices=False)
        U = np.linalg.svd(W, full_matrices=False)[0][:, :10]
        S = np.linalg.svd(W - W0, compute_uv=False)
        shares, plain = S**2 / (S**2).sum(), S / S.sum()
        m = len(S0) // 4
        cosines = np.abs(U0.T @ U).max(axis=0)
        rows = view.spectra[view.spectra.module == label]
        assert np.allclose(rows.cosine[: len(cosines)], cosines, atol=1e-3)
        energy = ((W - W0) ** 2).sum()
        wanted = {
            "weights.norm": np.linalg.norm(W - W0),
            "weights.relative": np.linalg.norm(W - W0) / np.linalg.norm(W0),
            "weights.largest": S[0] / S0[0],
            "weights.effective_rank": np.exp(-(plain * np.log(plain + 1e-300)).sum()),
            "weights.participation": 1 / (shares**2).sum(),
            "weights.intruders": (cosines < 0.5).sum(),
            "weights.alignment.left": ((U0[:, :m].T @ (W - W0)) ** 2).sum() / energy,
            "weights.alignment.right": (((W - W0) @ V0[:m].T) ** 2).sum() / energy,
        }
        assert values == pytest.approx(wanted, rel=2e-3)
        checked += 1
    assert checked == 6


def test_full_fine_tune_and_shared_modules(tiny_model, tiny_checkpoint, save_adapter, tmp_path):
    base = tiny_checkpoint("llama")
    tuned = tiny_model("llama")
    up = torch.randn(48, 32, generator=generator(0, "change"))
    changes = {
        "model.layers.1.mlp.up_proj": up,
        "model.layers.2.self_attn.o_proj": torch.ones(32, 32),
    }
    for module, change in changes.items():
        tuned.get_submodule(module).weight.data += 0.1 * change
    shutil.copytree(base, tmp_path / "tuned")
    tuned.save_pretrained(tmp_path / "tuned")
    lora = save_adapter(tmp_path / "a", target_modules=["o_proj"])
    variants = {"a": str(lora), "full": str(tmp_path / "tuned")}
    view = weights_view(load(str(base), variants, device="cpu"), settings=FEW)
    found = {e.key.module for e in view.estimates if e.key.adapter == "full"}
    assert found == {"layers.1.mlp.up_proj", "layers.2.self_attn.o_proj", ALL_MODULES}
    norm = pick(view.estimates, "weights.norm", "layers.1.mlp.up_proj", "full")
    assert norm.value == pytest.approx(0.1 * float(up.norm()), rel=1e-4)
    flat = pick(view.estimates, "weights.effective_rank", "layers.2.self_attn.o_proj", "full")
    assert flat.value == pytest.approx(1.0, abs=1e-3)
    noise = pick(view.estimates, "weights.effective_rank", "layers.1.mlp.up_proj", "full")
    assert noise.nulls[0].name == "random entries"
    assert noise.nulls[0].low < noise.value < noise.nulls[0].high
    assert flat.value < flat.nulls[0].low
    # One matrix is no sample: without an interval there is no verdict.
    assert flat.verdict == "no verdict"
    alone = weights_view(load(str(base), {"a": str(lora)}, device="cpu"), settings=FEW)
    assert alone.estimates == [e for e in view.estimates if e.key.adapter == "a"]


def test_what_is_no_matrix_is_named_and_the_rest_measured(
    tiny_model, tiny_checkpoint, save_adapter, tmp_path
):
    fields = {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}
    folder = save_adapter(tmp_path / "a", layers_to_transform=[1, 2], **fields)
    # A map whose base weight is nought has no ratio to it.
    shutil.copytree(tiny_checkpoint("llama"), tmp_path / "tiny-llama")
    base = tiny_model("llama")
    base.model.layers[2].self_attn.q_proj.weight.data.zero_()
    base.save_pretrained(tmp_path / "tiny-llama")
    model = load(str(tmp_path / "tiny-llama"), {"a": str(folder)}, device="cpu")
    view = weights_view(model, settings=FEW)
    assert {e.key.module for e in view.estimates} == {"layers.1.self_attn.q_proj", ALL_MODULES}
    left = view.left_out["a"]
    assert left.pop("model.layers.2.self_attn.q_proj").endswith("weights that are zero")
    assert left.pop("model.norm.weight") == "a tensor saved whole"
    assert set(left) == {
        f"model.layers.{i}.{norm}_layernorm.weight"
        for i in range(3)
        for norm in ("input", "post_attention")
    }


def test_modules_summed_up_by_hand():
    def module(norm, base, rank, draws):
        return {
            "weights.norm": Number(norm, 1, {ROUNDING: [0.01 * base]}),
            "weights.relative": Number(norm / base, 1, {ROUNDING: [0.01]}),
            "weights.effective_rank": Number(rank, 4, {"random factors": draws}),
        }

    two = [module(3.0, 5.0, 2.0, [3.0, 3.5]), module(4.0, 12.0, 3.0, [3.2, 3.1])]
    untouched = {measure: two[0][measure] for measure in ("weights.norm", "weights.relative")}
    untouched = {m: Number(0.0, 1, number.draws) for m, number in untouched.items()}
    found = summed_up([*two, untouched])
    assert found["weights.norm"].value == pytest.approx(5.0)
    assert found["weights.norm"].draws[ROUNDING] == pytest.approx([math.sqrt(194) / 100])
    relative = found["weights.relative"]
    assert relative.value == pytest.approx(5 / math.sqrt(194))
    assert relative.draws[ROUNDING] == pytest.approx([0.01])
    without = np.sqrt([16 / 169, 9 / 50, 25 / 169])
    half = 4.302652729911275 * math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert relative.interval == pytest.approx((relative.value - half, relative.value + half))
    rank = found["weights.effective_rank"]
    assert (rank.value, rank.n) == (2.5, 2)
    assert rank.draws["random factors"] == pytest.approx([3.1, 3.3])
    half = 12.706204736432095 * math.sqrt(0.5) / math.sqrt(2)
    assert rank.interval == pytest.approx((2.5 - half, 2.5 + half))
    # ... and an effective rank is never below 1
    assert rank.estimate("weights.effective_rank", Key()).interval[0] == 1.0


def test_blocks_and_all_modules(tiny_checkpoint, save_adapter, tmp_path):
    fields = {"target_modules": ["c_attn", "c_fc", "wte"], "layers_to_transform": [0, 2]}
    folder = save_adapter(tmp_path / "a", "gpt2", **fields, fan_in_fan_out=True)
    model = load(str(tiny_checkpoint("gpt2")), {"a": str(folder)}, device="cpu")
    view = weights_view(model, settings=FEW)
    settings = list(dict.fromkeys(e.key.module for e in view.estimates))
    modules = [f"layers.{i}.{m}" for i in (0, 2) for m in ("attn.c_attn", "mlp.c_fc")]
    assert {*modules, "layers.0", "layers.2", ALL_MODULES} <= set(settings)
    of_block = [pick(view.estimates, "weights.intruders", m) for m in modules[:2]]
    mean = pick(view.estimates, "weights.intruders", "layers.0")
    assert mean.value == (of_block[0].value + of_block[1].value) / 2
    assert mean.chance == pytest.approx((of_block[0].chance + of_block[1].chance) / 2)
    assert mean.key == Key("a", 4, module="layers.0")
    assert view.spectra.groupby(["adapter", "module"]).ngroups == len(
        [s for s in settings if s not in ("layers.0", "layers.2", ALL_MODULES)]
    )
    assert [block_of(s) for s in ("layers.2.mlp", "layers.2", "lm_head", ALL_MODULES)] == [
        *("layers.2", "layers.2", "", "")
    ]


def test_table_sets_weights_beside_activations():
    chance = (Null("random factors", 4.0, 3.5, 4.5),)
    place = Key("a", 8, module="layers.3.mlp.up_proj")
    rank = Estimate(
        "weights.effective_rank", 3.0, (math.nan, math.nan), 8, "dimensions", chance, place
    )
    activations = Estimate(
        "delta_rank", 71.0, (70.0, 72.0), 9, "dimensions", (), Key("a", 8, "layers.3")
    )
    elsewhere = activations.at(Key("b", 8, "layers.3"))
    (row,) = weights_table([rank, activations, elsewhere]).to_dict("records")
    assert row == {
        "adapter": "a",
        "rank": 8,
        "block": "layers.3",
        "module": "layers.3.mlp.up_proj",
        "Effective rank of the update": 3.0,
        "Effective rank of the update chance": 4.0,
        "Effective rank of the update low": 3.5,
        "Effective rank of the update high": 4.5,
        "Effective rank of the update verdict": "no verdict",
        "activations' effective rank": 71.0,
    }
    assert math.isnan(weights_table([rank])["activations' effective rank"][0])
    assert isinstance(weights_table([]), pd.DataFrame)


def test_zero_updates_have_norms_only():
    update = LoraUpdate("m", torch.zeros(6, 2), torch.ones(2, 5), 1.0)
    found = numbers(torch.randn(6, 5, generator=generator(0)), update, floor=0.1)
    assert {m: n.value for m, n in found.items()} == {"weights.norm": 0, "weights.relative": 0}
    assert at_place(found, "weights.norm").chance == 0.1


def test_refusals(tiny_checkpoint, save_adapter, tmp_path):
    for wrong in ({"k": 0}, {"epsilon": 0.0}, {"epsilon": 1.5}, {"subspace": 0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            WeightSettings(**wrong)
    with pytest.raises(InputError, match="no spread"):
        WeightSettings(repeats=1)
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj"])
    model = load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")
    with pytest.raises(InputError, match='no adapter named "b"'):
        weights_view(model, ["b"])


def test_high_ranks_get_few_draws():
    settings = WeightSettings(repeats=20)
    assert len(list(settings.randoms(512, "x"))) == 20
    assert len(list(settings.randoms(513, "x"))) == 3
    update = DenseUpdate("m", torch.eye(6))
    found = numbers(torch.randn(6, 6, generator=generator(0)), update, settings)
    assert len(found["weights.intruders"].draws["random update"]) == 20

"""Ordinary adapters, rounded copies and intruder dimensions, each by hand or another way."""

from __future__ import annotations

import math

import pytest
import torch
from written_adapters import PREFIX, factors, write

import lorascope as ls
from lorascope.checking import reference
from lorascope.checking.effect import ROUNDED, ROUNDINGS
from lorascope.checking.merging import as_stored, rounded
from lorascope.checking.reading import read_adapter
from lorascope.measures.weights import WeightSettings, weights_view


def rules(found):
    return {finding.rule for finding in found.findings}


def test_numbers_of_a_reference_by_hand(tmp_path):
    """Rank 1, norms 3 and 4: stable and effective rank 1 of 1, 4 over √(25 / 2)."""
    tensors = {}
    for layer, size in ((0, 3.0), (1, 4.0)):
        path = f"{PREFIX}.{layer}.mlp.up_proj"
        tensors[f"{path}.lora_A.weight"] = torch.eye(1, 5)
        tensors[f"{path}.lora_B.weight"] = size * torch.eye(7, 1)
    folder = write(tmp_path, tensors, r=1, lora_alpha=1, target_modules=["up_proj"])
    found = reference.numbers_of(read_adapter(str(folder)))
    assert set(found) == set(reference.NUMBERS)
    # Of rank one the norm is that of the factors, whatever they are.
    assert found["alignment"] == pytest.approx(1.0)
    assert found["effective rank"] == found["stable rank"] == pytest.approx(1.0)
    assert found["largest module"] == pytest.approx(4 / math.sqrt(12.5))


def test_the_table_that_ships_is_whole():
    found = reference.shipped()
    assert set(found.rows) == set(reference.NUMBERS)
    assert {len(values) for values in found.rows.values()} == {found.count}
    assert found.count >= reference.FEWEST
    assert all(math.isfinite(x) and x > 0 for values in found.rows.values() for x in values)
    assert max(found.rows["stable rank"]) <= 1
    assert min(found.rows["largest module"]) >= 1


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    place = tmp_path_factory.mktemp("ordinary")
    for seed in range(reference.FEWEST):
        write(place / f"{seed:02}", factors(seed, layers=6))
    return place


def test_one_like_the_others_is_unremarkable_and_another_is_not(ordinary, tmp_path):
    like = ls.check(write(tmp_path / "like", factors(100, layers=6)), reference=str(ordinary))
    assert like.reference.count == reference.FEWEST
    tensors = factors(101, layers=6)
    tensors[f"{PREFIX}.3.self_attn.q_proj.lora_B.weight"] *= 20
    unlike = ls.check(write(tmp_path / "unlike", tensors), reference=str(ordinary))
    note = next(one for one in unlike.findings if one.rule == "unlike-ordinary")
    assert "largest norm" in note.message
    assert f"{2 / (1 + reference.FEWEST):.0%}" in note.message
    p = {e.key.setting: e.headline.p for e in unlike.beside_ordinary}
    assert p["largest module"] == pytest.approx(2 / (1 + reference.FEWEST))
    assert "largest norm" not in str([one.message for one in like.findings])


def test_an_adapter_is_not_held_against_itself(ordinary):
    with pytest.raises(ls.InputError, match=f"{reference.FEWEST - 1} LoRA adapters"):
        ls.check(ordinary / "03", reference=str(ordinary))


def test_a_folder_with_too_few_is_refused(tmp_path):
    folder = write(tmp_path / "a" / "0", factors())
    with pytest.raises(ls.InputError, match="give a folder of"):
        ls.check(folder, reference=str(tmp_path))
    with pytest.raises(ls.InputError, match="does not exist"):
        ls.check(folder, reference=str(tmp_path / "nope"))


def test_rounding_by_hand():
    """Eight bits: steps of 127 / 127 = 1; four: steps of 7 / 7 in the first group, 14 / 7 after."""
    row = torch.tensor([[127.0, 0.4, 0.6, -126.6]])
    assert as_stored(row, "int8").tolist() == [[127.0, 0.0, 1.0, -127.0]]
    wide = torch.zeros(1, 40)
    wide[0, :3] = torch.tensor([7.0, 2.4, -2.6])
    wide[0, 32:35] = torch.tensor([-14.0, 2.9, 3.1])
    found = as_stored(wide, "int4")
    assert found.shape == (1, 40)
    assert found[0, :3].tolist() == [7.0, 2.0, -3.0]
    assert found[0, 32:35].tolist() == [-14.0, 2.0, 4.0]
    assert as_stored(torch.tensor([[1 + 2**-9]]), "bfloat16").item() == 1.0
    assert not as_stored(torch.zeros(2, 3), "int4").any()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_rounded_weights_come_back(architecture, tiny_checkpoint):
    """GPT-2 keeps its maps the other way round: rows are still what one output reads."""
    model = ls.load(tiny_checkpoint(architecture), {})
    blocks = [
        n
        for n, p in model.module.named_parameters()
        if (p.ndim == 2 and ".h." in n) or ".layers." in n
    ]
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    with rounded(model, "int4"):
        inside = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    changed = {n for n in before if not torch.equal(before[n], inside[n])}
    assert changed
    assert changed <= set(blocks)
    assert not any("norm" in n or "embed" in n or "wte" in n for n in changed)
    name = min(changed)
    turned = before[name].T if architecture == "gpt2" else before[name]
    expected = as_stored(turned, "int4")
    assert torch.equal(inside[name], expected.T if architecture == "gpt2" else expected)
    after = dict(model.module.named_parameters())
    assert all(torch.equal(before[n], after[n]) for n in before)


@pytest.fixture(scope="module")
def tried(tiny_checkpoint, save_adapter, tmp_path_factory):
    place = tmp_path_factory.mktemp("tried")
    for i in range(9):
        words = " ".join(f"w{(7 * i + j * (i + 1)) % 60}" for j in range(20))
        (place / f"{i}.txt").write_text(words)
    folder = save_adapter(place / "a", target_modules=["q_proj", "down_proj"])
    found = ls.check(
        folder, tiny_checkpoint(), texts=[str(place)], documents=9, force=True, intruders=2
    )
    return found, folder


def test_rougher_storage_costs_more(tried):
    costs = {e.key.setting: e for e in tried[0].effect.estimates if e.measure == ROUNDED}
    assert tuple(costs) == ROUNDINGS
    assert 0 < costs["bfloat16"].value < costs["int8"].value < costs["int4"].value
    for one in costs.values():
        assert one.headline.low <= one.headline.level <= one.headline.high
        assert one.headline.rival
    kept = {one.rounding: one.kept for one in tried[0].effect.rounded}
    kl = next(e.value for e in tried[0].effect.estimates if e.measure == "check.kl")
    assert kept["bfloat16"] == pytest.approx(kl, rel=0.05)
    assert tried[0].effect.restored


def test_intruders_are_those_of_the_weights_view(tried, tiny_checkpoint):
    """The audit's own numbers of the same modules, the two of the largest update."""
    found, folder = tried
    ours = {
        (e.measure, e.key.module): e.value
        for e in found.effect.estimates
        if e.measure.startswith("weights.")
    }
    largest = sorted(found.read.modules, key=lambda m: -m.norm)[:2]
    assert {module for _, module in ours} == {"all modules", *(m.path for m in largest)}
    model = ls.load(tiny_checkpoint(), {"a": folder}, force=True)
    whole = weights_view(model, settings=WeightSettings(repeats=2))
    theirs = {(e.measure, e.key.module): e.value for e in whole.estimates}
    for (measure, module), value in ours.items():
        if module != "all modules":
            assert value == pytest.approx(theirs[measure, module.removeprefix("model.")])

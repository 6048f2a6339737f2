"""Two evaluations against each other: planted differences, none, and what is refused."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch

import lorascope as ls
from lorascope import cli
from lorascope.dictionaries.files import save
from lorascope.errors import InputError
from lorascope.report.result import read_results
from lorascope.results import Estimate, Key
from lorascope.stats.intervals import normal_interval
from lorascope.studies.evaluate.comparison import compare_evaluations
from lorascope.studies.evaluate.differences import paired, unpaired
from lorascope.studies.evaluate.units import Units

AT = Key(dictionary="b", compared="a")


def documents(above, below=None, ids="abcdefghij", measure="evaluate.fvu"):
    n = len(ids)
    below = torch.full((n,), 2.0) if below is None else below
    return Units.ratio(measure, Key(), ids, torch.as_tensor(above), below, torch.ones(n))


def test_a_planted_difference_is_found_and_paired():
    """Documents differ a lot, sides by a fifth of a unit in every one: pairing alone sees it."""
    draw = torch.Generator().manual_seed(0)
    base = 4 * torch.rand(10, generator=draw) + 1
    noise = 0.02 * torch.randn(10, generator=draw)
    found = paired(documents(base), documents(base + 0.4 + noise), AT, "ratio")
    assert found.estimate.value == pytest.approx(0.2, abs=0.02)
    assert found.estimate.verdict == "above"
    assert (found.shared, found.units, found.kind) == (10, (10, 10), "documents")
    (low, high), (other_low, other_high) = found.first[1], found.second[1]
    assert max(low, other_low) < min(high, other_high)  # apart only as pairs
    assert found.estimate.value == pytest.approx(found.second[0] - found.first[0])


def test_the_sides_are_not_swapped_by_hand():
    """Sets: 0.5, 0.6, 0.9 and 0.7, 0.6, 1.0: +0.1 on average, t over three differences."""
    one = Units.mean("evaluate.probe_accuracy", Key(), "sets", "abc", [0.5, 0.6, 0.9])
    other = Units.mean("evaluate.probe_accuracy", Key(), "sets", "abc", [0.7, 0.6, 1.0])
    found = paired(one, other, AT, "share")
    assert found.estimate.value == pytest.approx(0.1)
    assert found.first[0] == pytest.approx(2 / 3)
    assert found.second[0] == pytest.approx(2.3 / 3)
    expected = normal_interval(torch.tensor([0.2, 0.0, 0.1]))
    assert found.estimate.interval == pytest.approx(expected)
    assert found.estimate.verdict == "not settled"


def test_units_are_matched_by_name_and_the_rest_is_left_out():
    one = Units.mean("evaluate.probe_accuracy", Key(), "texts", "abcdefghXY", torch.arange(10.0))
    order = "hgfedcbaZ"
    values = torch.tensor([7.0, 6, 5, 4, 3, 2, 1, 0, 99])
    found = paired(one, Units.mean(one.measure, Key(), "texts", order, values), AT, "share")
    assert found.shared == 8
    assert found.units == (10, 9)
    assert found.estimate.value == 0
    assert found.estimate.interval == (0, 0)
    assert found.estimate.verdict == "not settled"


@pytest.mark.parametrize("kind", ["texts", "items"])
def test_too_few_common_units_give_no_number(kind):
    one = Units.mean("evaluate.benchmark", Key(), kind, "abcdefg", torch.zeros(7))
    assert paired(one, one, AT, "share") is None
    assert (
        paired(documents(torch.ones(10)), documents(torch.ones(10), ids="klmnopqrst"), AT, "")
        is None
    )


def test_where_nothing_differs_one_in_twenty_leaves_zero():
    draw = torch.Generator().manual_seed(1)
    apart = 0
    for _ in range(400):
        below = torch.rand(30, generator=draw, dtype=torch.float64) + 0.5
        sums = [below * (1 + 0.3 * torch.randn(30, generator=draw)) for _ in range(2)]
        tokens = [
            Units.ratio("evaluate.fvu", Key(), map(str, range(30)), s, below, below) for s in sums
        ]
        apart += paired(*tokens, AT, "ratio").estimate.apart
    assert 8 <= apart <= 34  # binomial(400, 0.05): 20 ± 3.2 standard deviations


def test_latents_are_compared_by_both_intervals_by_hand():
    """Square and add: 0.3 [0.25, 0.36] less 0.2 [0.16, 0.25]."""
    first = Estimate("evaluate.dead_share", 0.2, (0.16, 0.25), 100, "share")
    second = Estimate("evaluate.dead_share", 0.3, (0.25, 0.36), 200, "share")
    found = unpaired(first, second, AT)
    low, high = 0.1 - math.hypot(0.05, 0.05), 0.1 + math.hypot(0.06, 0.04)
    assert found.estimate.value == pytest.approx(0.1)
    assert found.estimate.interval == pytest.approx((low, high))
    assert found.kind == ""


def with_noise(dictionary, size):
    """The same with its decoder moved: reconstructs less, fires as often."""
    random = torch.randn(dictionary.directions.shape, generator=torch.Generator().manual_seed(3))
    return dictionary.with_tensors({"directions": dictionary.directions + size * random})


@pytest.fixture(scope="module")
def runs(tiny_checkpoint, identity_dictionary, tmp_path_factory):
    """Evaluations of the exact dictionary and of a noisy one, and of two at once."""
    folder = tmp_path_factory.mktemp("compared")
    save(identity_dictionary, folder / "exact")
    save(with_noise(identity_dictionary, 0.2), folder / "noisy")
    for name, bend in (("texts", 0), ("other", 1)):
        texts = [
            " ".join(f"w{(7 * i + 3 * j + bend * j * j) % 50}" for j in range(12))
            for i in range(120)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    for name in "abc":
        lines = ["text,label"]
        for i in range(80):
            words = " ".join(f"w{10 + (11 * i + 5 * j + ord(name)) % 37}" for j in range(6))
            lines.append(f"{words}{' w3 w3' if i % 2 else ' w4'},{'yes' if i % 2 else 'no'}")
        (folder / f"{name}.csv").write_text("\n".join(lines))

    def evaluated(name, subjects, texts="texts", **changes):
        settings = {
            "only": ["core", "probing"],
            "device": "cpu",
            "context": 32,
            "core": {"tokens": 300, "training_tokens": 300},
            "probing": {
                "sets": [str(folder / f"{one}.csv") for one in "abc"],
                **{"k": [1, 5], "train": 40, "test": 40},
            },
            **changes,
        }
        subjects = {
            key: {"dictionaries": {"layers.1": str(folder / which)} if which else {}}
            for key, which in subjects.items()
        }
        where = {"sources": [str(folder / f"{texts}.jsonl")], "held_out": 0.3}
        model = str(tiny_checkpoint("llama"))
        ls.evaluate(model, where, subjects, out=folder / name, quiet=True, **settings)
        return folder / name

    return evaluated, {
        "exact": evaluated("run-exact", {"mine": "exact"}),
        "noisy": evaluated("run-noisy", {"mine": "noisy"}),
        "both": evaluated("run-both", {"exact": "exact", "noisy": "noisy", "none": ""}),
    }


def test_a_worse_dictionary_is_told_from_a_better_one(runs, tmp_path, looked_at):
    _, made = runs
    found = compare_evaluations(str(made["exact"]), str(made["noisy"]), tmp_path / "out")
    table = read_results(tmp_path / "out").numbers
    fvu = table.one("evaluate.difference", about="evaluate.fvu")
    assert fvu.verdict == "above"
    own = {
        name: read_results(made[name]).numbers.one("evaluate.fvu").value
        for name in ("exact", "noisy")
    }
    assert fvu.value == pytest.approx(own["noisy"] - own["exact"])
    kl = table.one("evaluate.difference", about="evaluate.kl")
    assert kl.verdict == "above"
    # The original model is the same in both, to the last digit.
    same = table.one("evaluate.difference", about="evaluate.loss", model="original")
    assert same.value == 0
    assert not same.apart
    sides = found.facts["sides"][str(fvu.key)]
    assert sides["kind"] == "documents"
    assert sides["shared"] == sides["units"][0] == sides["units"][1]
    assert {
        e.key.topic for e in table.select("evaluate.difference", about="evaluate.probe_auc")
    } == {"all sets"}
    text = found.report.read_text()
    assert "Two evaluations against each other" in text
    assert found.facts["warnings"] == []
    assert ls.report.build(tmp_path / "out").read_text() == text
    looked_at(found.report)


def test_the_same_evaluation_twice_differs_nowhere(runs, tmp_path):
    _, made = runs
    found = compare_evaluations(str(made["exact"]), f"{made['both']}:exact", tmp_path / "out")
    assert len(found.estimates) > 15
    assert all(one.value == 0 and not one.apart for one in found.estimates)


def test_subjects_of_one_run_and_of_one_name(runs, tmp_path):
    evaluated, made = runs
    within = compare_evaluations(f"{made['both']}:exact", ":noisy", tmp_path / "within")
    table = {(e.key.about, e.key.model): e for e in within.estimates if not e.key.topic}
    assert table["evaluate.fvu", "spliced"].verdict == "above"
    assert table["evaluate.fvu", "spliced"].key.compared == "exact"
    again = evaluated("run-again", {"noisy": "exact", "exact": "exact", "none": ""})
    pairs = compare_evaluations(str(made["both"]), str(again), tmp_path / "pairs")
    assert [side[0]["subject"] for side in pairs.facts["pairs"]] == ["exact", "noisy", "none"]
    keys = [(e.measure, e.key) for e in pairs.estimates]
    assert len(set(keys)) == len(keys)
    assert len(pairs.facts["sides"]) == len(keys)
    # A model without dictionaries has its loss alone.
    mine = compare_evaluations(f"{made['both']}:none", str(made["exact"]), tmp_path / "none")
    assert {e.key.about for e in mine.estimates} == {"evaluate.loss"}
    assert any("probing: of one of" in line for line in mine.facts["warnings"])


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    evaluated, made = runs
    out = tmp_path / "out"
    with pytest.raises(InputError, match="holds the subjects exact, noisy, none; say which"):
        compare_evaluations(str(made["exact"]), str(made["both"]), out)
    with pytest.raises(InputError, match=r'no subject named "exat".*Did you mean'):
        compare_evaluations(str(made["exact"]), f"{made['both']}:exat", out)
    with pytest.raises(InputError, match="one subject of one run"):
        compare_evaluations(str(made["exact"]), str(made["exact"]), out)
    other = evaluated("run-other", {"mine": "exact"}, texts="other", only=["core"], probing=None)
    with pytest.raises(InputError, match="in common; evaluate both on the same"):
        compare_evaluations(str(made["exact"]), str(other), out)
    assert not out.exists()
    # Probing read otherwise is another number; core stays.
    shorter = {
        "sets": [str(made["exact"].parent / "a.csv")],
        **{"k": [1], "train": 40, "test": 40, "pool": "last"},
    }
    last = evaluated("run-last", {"mine": "exact"}, probing=shorter)
    found = compare_evaluations(str(made["exact"]), str(last), out)
    assert any("probing.pool is last, not mean" in line for line in found.facts["warnings"])
    assert "evaluate.probe_accuracy" not in {e.key.about for e in found.estimates}
    # The mean of other training rows is another ablation: zero ablation stays.
    core = {"tokens": 300, "training_tokens": 250}
    fewer = evaluated("run-fewer", {"mine": "exact"}, only=["core"], probing=None, core=core)
    found = compare_evaluations(str(made["exact"]), str(fewer), out)
    assert {e.key.setting for e in found.estimates} == {"", "zero ablation"}
    assert any("core.training_tokens" in line for line in found.facts["warnings"])
    (made["noisy"] / "core" / "mine" / "units.json").rename(tmp_path / "away")
    try:
        with pytest.raises(InputError, match=r"run-noisy.*kept no units\.json"):
            compare_evaluations(str(made["exact"]), str(made["noisy"]), out)
    finally:
        (tmp_path / "away").rename(made["noisy"] / "core" / "mine" / "units.json")


def lorascope_with(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["lorascope", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as left:
        return left.code
    return 0


def test_from_the_command_line_and_from_python(runs, tmp_path, monkeypatch, capsys):
    _, made = runs
    out = tmp_path / "out"
    assert not lorascope_with(monkeypatch, "compare", made["exact"], made["noisy"], "--out", out)
    said = capsys.readouterr().out
    assert "FVU" in said
    assert "differences leave 0" in said
    arguments = ("compare", made["exact"], made["noisy"], "--out", out)
    assert not lorascope_with(monkeypatch, *arguments, "--json")
    plain = json.loads(capsys.readouterr().out)
    assert {row["about"] for row in plain["estimates"]} >= {"evaluate.fvu", "evaluate.kl"}
    assert len(plain["sides"]) == len(plain["estimates"])
    assert lorascope_with(monkeypatch, *arguments, "--rows", 5) == 2
    assert lorascope_with(monkeypatch, "compare", made["exact"], tmp_path) == 2
    opened = ls.compare(made["exact"], made["noisy"], out=out, quiet=True)
    assert opened.table.one("evaluate.difference", about="evaluate.fvu").verdict == "above"


def test_other_sites_are_held_against_each_other_where_each_side_has_one():
    one = documents(torch.ones(10))
    first = replace(one, key=Key(site="layers.1"))
    second = replace(documents(2 * torch.ones(10)), key=Key(site="layers.2"))
    found = paired(first, second, AT, "ratio")
    assert found.sites == ("layers.1", "layers.2")
    assert found.estimate.value == pytest.approx(0.5)

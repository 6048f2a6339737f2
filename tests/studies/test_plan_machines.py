"""Plans for machines one would rent, what they assume, and what they advise."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lorascope import cli
from lorascope.errors import InputError
from lorascope.studies.audit.demo import demo_study
from lorascope.studies.audit.plan import plan
from lorascope.workflows import cost as cost_module
from lorascope.workflows.advice import lowers_memory, lowers_time
from lorascope.workflows.cost import ON_CPU, Cost, CostPart, what_does_not_fit
from lorascope.workflows.machines import MACHINES, machine_named

PARTS = (
    CostPart("capture", 1e15, 3 * 10**9, torch.float32, 0.5),
    CostPart("dictionary training", 1e15, 10**9, torch.bfloat16, 0.5, fixed=2.0),
    CostPart("measures", 1e12, 10**9, torch.float32, 0.5),
)
COST = Cost(disk=10**6, parts=PARTS, device="cpu")


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    monkeypatch.setattr(cost_module, "product_speed", lambda device, dtype: 1e11)


def test_hours_on_a_machine_follow_from_its_stated_speed():
    seconds = replace(COST, machine=machine_named("h100")).seconds()
    assert seconds["capture"] == pytest.approx(1e15 / (0.5 * 0.6 * 67e12))
    assert seconds["dictionary training"] == pytest.approx(2 + 1e15 / (0.5 * 0.6 * 989e12))
    # This part is computed on the CPU wherever the study runs.
    assert "measures" in ON_CPU
    assert seconds["measures"] == pytest.approx(1e12 / (0.5 * 1e11)) == COST.seconds()["measures"]


def test_the_speed_assumed_and_what_to_lower_are_said():
    here = dict(COST.prices())
    assert (
        "100 GFLOP/s in float32, 100 GFLOP/s in bfloat16 (products measured here"
        in (here["speed assumed"])
    )
    assert here["largest part"].startswith("dictionary training, ")
    assert "lower dictionaries.architecture.n_latents" in here["largest part"]
    assert "on this machine (cpu)" in here["time"]
    there = dict(replace(COST, machine=machine_named("4090")).prices())
    assert "on one GeForce RTX 4090" in there["time"]
    assert "49,560 GFLOP/s in float32" in there["speed assumed"]
    assert "as stated" in there["speed assumed"]
    assert "100 GFLOP/s in float32 (products measured here" in there["speed assumed"]


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_of_the_table_is_a_machine(name):
    one = machine_named(name.upper())
    assert 10**10 < one.memory < 10**12
    assert one.float64 <= one.float32 <= one.bfloat16
    assert one.speed(torch.float16) == one.speed(torch.bfloat16)


def test_a_machine_that_is_not_in_the_table_is_refused():
    with pytest.raises(InputError, match=r'no machine "h10".* Did you mean "h100"'):
        machine_named("h10")


def test_what_does_not_fit_names_the_part_and_the_setting(tmp_path):
    assert not what_does_not_fit(COST, tmp_path, memory=5 * 10**9)
    (line,) = what_does_not_fit(COST, tmp_path, memory=10**9)
    assert "3.7 GB of memory in capture and it has 1 GB; lower capture.batch_tokens" in line
    large = replace(COST, parts=(replace(PARTS[0], memory=30 * 10**9),))
    (line,) = what_does_not_fit(replace(large, machine=machine_named("l4")), tmp_path)
    assert "and one L4 has 24 GB" in line
    assert not what_does_not_fit(replace(large, machine=machine_named("h100")), tmp_path)


def test_every_part_of_an_audit_has_advice_of_its_own():
    parts = plan(demo_study(True)).parts
    assert {"capture", "reading", "effects", "weights"} <= {part.name for part in parts}
    for part in parts:
        assert lowers_time(part.name) != lowers_time("something else")
        assert lowers_memory(part.name) != lowers_memory("something else")


def test_the_command_plans_for_a_machine_and_warns(monkeypatch, capsys, tmp_path):
    study = tmp_path / "embedded.yaml"
    study.write_text(demo_study(quick=True).yaml(), encoding="utf-8")

    def run(*options):
        arguments = ["plan", str(study), "--out", str(tmp_path / "run"), *options]
        monkeypatch.setattr(sys, "argv", ["lorascope", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
        return SimpleNamespace(
            code=code, **dict(zip(("out", "err"), capsys.readouterr(), strict=True))
        )

    found = run("--device", "h100")
    assert found.code == 0
    assert "on one H100 SXM 80 GB" in found.out
    assert "warning" not in found.err
    found = run("--memory", "0.5")
    assert found.code == 0
    assert "warning: the study needs" in found.err
    assert "and it has 500 MB" in found.err
    found = run("--memory", "0.5", "--json")
    told = json.loads(found.out)
    assert found.err == ""
    assert told["warnings"][0].startswith("the study needs")
    assert told["memory"] == max(part["memory"] for part in told["parts"])
    for what in ("seconds", "operations"):
        assert told[what] == pytest.approx(sum(part[what] for part in told["parts"]))
    found = run("--device", "h1000")
    assert found.code == 2
    assert 'Did you mean "h100"?' in found.err

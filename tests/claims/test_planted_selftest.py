"""Planted truth is recovered, nothing is found where nothing is, and an adapter built by hand is
found, named and taken away: the self-test's three parts, in the sizes of `--quick` and in full."""

import json

import pytest
from typer.testing import CliRunner

from lorascope import cli
from lorascope.planted import recovery
from lorascope.planted.coverage import CoverageRow
from lorascope.planted.detection import Detected
from lorascope.planted.rates import Rate
from lorascope.planted.shares import Share
from lorascope.progress import Reporter
from lorascope.selftest import selftest as workflow

pytestmark = pytest.mark.slow  # minutes on two cores


@pytest.fixture(scope="module")
def quick():
    return workflow.selftest(workflow.QUICK, Reporter(quiet=True))


def test_nothing_fails(quick):
    assert quick.failures == []


def test_planted_shares_are_recovered(quick):
    quantities = {found.quantity for found in quick.recovery}
    assert quantities == {
        *("shared directions", "new directions", "energy expressed"),
        *("firings together", "firings apart", "CKA of all rows"),
    }
    for quantity in quantities:
        rows = [found for found in quick.recovery if found.quantity == quantity]
        assert sum(not found.recovered for found in rows) <= 1, quantity
        # Not by intervals that hold everything.
        values = [found.value for found in rows]
        assert max(values) - min(values) > 0.8
        assert max(high - low for low, high in (found.interval for found in rows)) < 0.4


def test_where_nothing_is_planted_little_is_found(quick):
    assert len(quick.rates) > 40
    for rate in quick.rates:
        assert rate.repeats == workflow.QUICK.repeats
        assert rate.passed, rate


def test_the_adapter_built_by_hand_is_found_named_and_taken_away(quick):
    found = quick.detected
    assert found.cosine > 0.9
    assert found.precision > 0.9
    assert found.recall > 0.9
    assert found.named_share == 1.0
    assert not any(c.isalnum() for name in found.named for c in name)
    assert found.removed_kl[0] > 0.9
    assert found.added_kl[0] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_in_full(seed):
    found = workflow.selftest(workflow.STANDARD, Reporter(quiet=True), seed)
    assert found.failures == []
    assert any(rate.measure == "recovery.kl" for rate in found.rates)


def result(failures):
    detected = Detected(0.99, 1.0, 0.5, ("7",), 1.0, None, (0.95, (0.9, 1.0)), (0.9, (0.8, 1.0)))
    planted = recovery.PlantedRecovery(
        "shared directions", "max_cosine.above_0.7", "true", 1, 0.2, (0.1, 0.3)
    )
    rates = [Rate("overlap", "independence", 9, 40)]
    coverage = [CoverageRow("mean", "documents", 8, None, 700, 1000)]
    shares = [Share("null adapters", "all primary numbers", 30, 100, 0.05)]
    return workflow.Selftest([planted] * 5, rates, detected, coverage, shares, failures, 1.0)


def test_every_kind_of_failure_has_a_line():
    failing = result([])
    together, missed = workflow._unrecovered(failing.recovery)
    assert together.startswith("recovery: 5 of 5")
    assert missed.startswith("recovery: shared directions")
    assert "5 of 5" in missed
    together, many = workflow._too_many(failing.rates)
    assert "9 of 40" in together
    assert "overlap found something in 9 of 40" in many
    (undetected,) = workflow._undetected(failing.detected)
    assert "recall of the planted class is 0.500" in undetected
    # One kind of one may miss by chance, two of two may not.
    (narrow, _) = workflow._uncovered(failing.coverage * 2)
    assert "mean, 8 documents: 700 of 1000" in narrow


@pytest.mark.parametrize(("failures", "code"), [([], 0), (["overlap: too many"], 1)])
def test_the_exit_code_says_whether_all_passed(monkeypatch, failures, code):
    given = []

    def run(sizes, reporter, seed):
        given.append((sizes, seed))
        return result(failures)

    monkeypatch.setattr(workflow, "selftest", run)
    said = CliRunner().invoke(cli.app, ["selftest", "--quick", "--seed", "3", "--json"])
    assert said.exit_code == code
    assert given == [(workflow.QUICK, 3)]
    plain = json.loads(said.stdout)
    assert plain["passed"] == (not failures)
    assert plain["recovery"][0]["recovered"] is False
    assert all(line in said.stderr for line in failures)
    table = CliRunner().invoke(cli.app, ["selftest"])
    assert given[1] == (workflow.STANDARD, 0)
    assert "max_cosine.above_0.7" in table.stdout
    assert "missed" in table.stdout
    assert "too many" in table.stdout
    assert "30/100" in table.stdout
    CliRunner().invoke(cli.app, ["selftest", "--full"])
    assert given[2] == (workflow.FULL, 0)
    both = CliRunner().invoke(cli.app, ["selftest", "--full", "--quick"])
    assert both.exit_code != 0

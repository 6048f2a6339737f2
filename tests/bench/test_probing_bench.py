"""The probing bench prints seconds, their ratio and how far accuracies lie apart."""

import importlib.util
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def bench():
    """The script, whose name is that of a module of the package's too."""
    spec = importlib.util.spec_from_file_location("probing_bench", BENCH / "probing.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules["probing_bench"] = found
    spec.loader.exec_module(found)
    return found


def test_medians_ratios_and_gaps_by_hand(capsys):
    mine = [{"seconds": s, "accuracy": {"a": {"1": 0.8, "2": 0.9}}} for s in (2.0, 1.0, 4.0)]
    theirs = [{"seconds": s, "accuracy": {"a": {"1": 0.9, "2": 0.9}}} for s in (10.0, 8.0, 8.0)]
    bench().report(list(zip(mine, theirs, strict=True)), 1)
    printed = capsys.readouterr().out
    assert "2.00 s for 1 sets,      300 texts/s" in printed
    assert "8.00 s for 1 sets" in printed
    assert "ratio 5.00 [2.00, 8.00]" in printed
    assert "2 probes: -0.050 apart on average, at most 0.100" in printed


def test_both_sides_get_the_same_rows():
    module = bench()
    (one, *_) = module.embedded_sets()
    train, test = one.halves(module.SETTINGS.train, module.SETTINGS.test, 0)
    for part in (train, test):
        by_class = module._by_class(part)
        assert sorted(by_class["0"] + by_class["1"]) == sorted(part.texts)
        assert len(by_class["1"]) == sum(part.labels)

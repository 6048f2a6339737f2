"""The bench of check and scan runs, and what goes on is quicker than what begins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "check.py"


def test_every_command_is_measured(tmp_path):
    command = [sys.executable, str(SCRIPT), "--quick", "--only", "scan", "--folder", str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^scan of (\d+), (.*): ([\d.]+) cpu s, .*, ([\d,.]+) MB$", printed, re.M)
    assert [(row[0], row[1]) for row in found] == [
        ("20", "2 processes"),
        ("20", "once more"),
        ("60", "2 processes"),
        ("60", "once more"),
    ]
    assert all(float(row[3].replace(",", "")) > 50 for row in found)
    assert float(found[3][2]) < float(found[2][2])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_versions_are_run_in_turn(tmp_path):
    source = SCRIPT.parents[1] / "src"
    options = ["--only", "model", "--against", str(source), "--repeats", "1"]
    command = [sys.executable, str(SCRIPT), *options, "--folder", str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = r"([\d.]+) (?:x )?cpu s, ([\d.]+) (?:x )?wall s, ([\d,.]+) (?:x )?MB$"
    found = re.findall(rf"^(.*): {numbers}", printed, re.M)
    assert [row[0] for row in found] == [
        "check with a model, other",
        "check with a model, this",
        "other over this",
    ]
    # The same source on both sides.
    assert 0.8 < float(found[2][3]) < 1.25

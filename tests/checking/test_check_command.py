"""The command: exit codes, gates, and what its outputs are valid against."""

from __future__ import annotations

import importlib.util
import json
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner
from written_adapters import PREFIX, factors, write

import lorascope as ls
from lorascope.checking import formats
from lorascope.checking.findings import RULES
from lorascope.cli import app

KEY = f"{PREFIX}.2.self_attn.q_proj.lora_B.weight"


def run(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments), "--quiet"])


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good", factors())


@pytest.fixture
def bad(tmp_path):
    tensors = factors()
    tensors[KEY][0, 0] = float("nan")
    return write(tmp_path / "bad <&\x1b>", tensors)


def test_exit_codes(good, bad, tmp_path):
    assert run(good).exit_code == 0
    assert run(bad).exit_code == 0
    assert run(good, "--require", "whole", "--require", "live", "--max-norm-z", 50).exit_code == 0
    missed = run(bad, "--require", "whole", "--require", "live")
    assert missed.exit_code == 1
    assert [line for line in missed.stderr.splitlines() if "--require" in line] != []
    assert "live" not in missed.stderr
    assert run(good, "--max-norm-z", 0.5).exit_code == 1
    for wrong in (
        (tmp_path,),
        (good, "--max-kl", 0.1),
        (good, "--require", "nice"),
        (good, "--json", "--sarif"),
        (good, "--draws", 5),
        (good, "--model", "./nope"),
    ):
        assert isinstance(run(*wrong).exception, ls.InputError), wrong


def problems(schema, data, place="$"):
    """What a JSON schema of the few words that ours uses finds wrong; enough without a library."""
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "null": type(None),
        "number": (int, float),
        "integer": int,
    }
    if "anyOf" in schema:
        return [] if any(not problems(s, data) for s in schema["anyOf"]) else [place]
    if "const" in schema and data != schema["const"]:
        return [place]
    if "enum" in schema and data not in schema["enum"]:
        return [place]
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    numeric = isinstance(data, bool) and "boolean" not in wanted
    if wanted and (numeric or not any(isinstance(data, kinds[w]) for w in wanted)):
        return [place]
    if isinstance(data, int | float) and data < schema.get("minimum", data):
        return [place]
    found = []
    if isinstance(data, dict):
        found += [f"{place}.{name}" for name in schema.get("required", ()) if name not in data]
        for name, inner in schema.get("properties", {}).items():
            found += problems(inner, data[name], f"{place}.{name}") if name in data else []
    if isinstance(data, list):
        for i, one in enumerate(data):
            found += problems(schema.get("items", {}), one, f"{place}[{i}]")
    return found


def test_json_is_what_its_schema_says(good, bad):
    schema = formats.schema()
    for folder in (good, bad):
        data = json.loads(run(folder, "--json", "--require", "live").stdout)
        assert problems(schema, data) == []
        if importlib.util.find_spec("jsonschema") is not None:
            import jsonschema

            jsonschema.validate(data, schema)
        assert data["adapter"]["modules"] == len(ls.check(folder).read.modules)
    broken = {**data, "findings": [{**data["findings"][0], "level": "bad"}], "gates": None}
    assert problems(schema, broken) == ["$.findings[0].level", "$.gates"]
    del broken["adapter"]["base"]
    assert "$.adapter.base" in problems(schema, broken)
    estimates = {(e["measure"], e["module"]): e for e in data["estimates"]}
    zero = estimates["check.norm", "model.layers.0.self_attn.q_proj"]
    assert zero["chance"]["low"] < zero["chance"]["level"] < zero["chance"]["high"]


def test_sarif_names_rules_that_it_lists(bad):
    data = json.loads(run(bad, "--sarif", "--require", "whole").stdout)
    assert data["version"] == "2.1.0"
    (one,) = data["runs"]
    listed = [rule["id"] for rule in one["tool"]["driver"]["rules"]]
    assert set(RULES) < set(listed)
    assert len(set(listed)) == len(listed)
    results = {result["ruleId"]: result for result in one["results"]}
    assert set(results) == {"not-finite", "gate"}
    assert set(results) <= set(listed)
    for result in results.values():
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert place["uriBaseId"] in one["originalUriBaseIds"]
        assert place["uri"] in ("adapter_model.safetensors", "adapter_config.json")
    base = one["originalUriBaseIds"]["ADAPTER"]["uri"]
    assert base.startswith("file:///")
    assert base.endswith("/")
    assert " " not in base


def test_junit_counts_its_failures(good, bad):
    for folder, failures in ((good, 0), (bad, 2)):
        text = run(folder, "--junit", "--require", "whole", "--require", "live").stdout
        suite = ElementTree.fromstring(text.partition("\n")[2]).find("testsuite")
        cases = suite.findall("testcase")
        assert [case.get("name") for case in cases] == [
            "files",
            "--require whole",
            "--require live",
        ]
        assert int(suite.get("tests")) == 3
        assert int(suite.get("failures")) == failures
        assert len(suite.findall("testcase/failure")) == failures


def test_every_finding_is_of_a_rule(good):
    found = ls.check(good)
    assert found.findings == []
    assert found.missed == []
    assert "12 modules" in repr(found)
    assert torch.isfinite(torch.tensor(found.to_frame()["value"].to_numpy())).all()

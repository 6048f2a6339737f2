"""results.json is what its schema says, and the manifest tells what was written."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace

import jsonschema
import pytest
from planted_results import planted_estimates

from lorascope.report import machine
from lorascope.report.result import read_results


def test_results_are_what_their_schema_says(make_run):
    estimates = planted_estimates()
    estimates[0] = replace(estimates[0], value=math.nan)
    run = make_run(estimates)
    (run / "manifest.json").write_text(json.dumps({"study": "x", "stages": {}}))
    page = run / "report" / "index.html"
    page.parent.mkdir()
    page.write_text("the page")
    file = machine.write(read_results(run), page)
    data = json.loads(file.read_text())
    schema = machine.schema()
    jsonschema.validate(data, schema)
    assert len(data["estimates"]) == len(estimates)
    assert data["estimates"][0]["value"] is None
    one = data["estimates"][1]
    assert one["value"] == pytest.approx(estimates[1].value)
    assert [null["name"] for null in one["nulls"]] == [
        null.name for null in read_results(run).estimates[1].nulls
    ]
    for broken in ({**data, "schema": "lorascope-results-2"}, {**data, "estimates": [{}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["study"] == "x"
    assert manifest["report"] == {
        "report/index.html": hashlib.sha256(b"the page").hexdigest(),
        "report/results.json": hashlib.sha256(file.read_bytes()).hexdigest(),
    }

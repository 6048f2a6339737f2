"""A check as data: JSON of a versioned schema, SARIF 2.1.0, and JUnit's XML."""

from __future__ import annotations

import json
import math
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree

import lorascope
from lorascope.checking.findings import RULES
from lorascope.results import Estimate

if TYPE_CHECKING:
    from lorascope.checking.check import Check

# Raised where a field goes or changes its meaning; new fields may come within a version.
VERSION = 1
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
# XML 1.0 has no place for these, escaped or not.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def schema() -> dict[str, Any]:
    """The JSON schema of what `plain` returns, as it ships with the package."""
    text = files("lorascope.checking").joinpath(f"schemas/check-{VERSION}.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def plain(found: Check) -> dict[str, Any]:
    """Everything of a check as plain data; what is no number is None."""
    read = found.read
    return {
        "schema": f"lorascope-check-{VERSION}",
        "lorascope": lorascope.__version__,
        "adapter": {
            "name": read.name,
            "path": read.path,
            "type": read.kind,
            "base": read.base,
            "parameters": read.parameters,
            "modules": len(read.modules),
            "usable": read.usable,
        },
        "findings": [
            {
                "rule": one.rule,
                "level": one.level,
                "message": one.message,
                "file": one.file,
                "where": list(one.where),
            }
            for one in found.findings
        ],
        "estimates": [_number(one) for one in found.estimates],
        "outliers": [
            {
                "kind": one.kind,
                "modules": one.modules,
                "largest": one.largest or None,
                "z": _known(one.z),
                "p": _known(one.p),
                "adjusted": _known(one.adjusted),
            }
            for one in found.outliers
        ],
        "reference": {"what": found.reference.what, "adapters": found.reference.count},
        "model": _of_model(found),
        "gates": [
            {"option": gate.option, "passed": gate.passed, "message": gate.message}
            for gate in found.gates
        ],
    }


def _of_model(found: Check) -> dict[str, Any] | None:
    effect = found.effect
    if effect is None:
        return None
    return {
        "id": found.settings.model,
        "live": effect.live,
        "restored": effect.restored,
        "documents": effect.documents,
        "tokens": effect.tokens,
        "draws": found.settings.draws,
        "merged_difference": None if effect.merged is None else _known(effect.merged),
        "rounded": [{"rounding": one.rounding, "kept": _known(one.kept)} for one in effect.rounded],
        "scales": [
            {"factor": at.factor, "kl": _known(at.kl), "loss": _known(at.loss)}
            for at in effect.curve
        ],
    }


def _number(estimate: Estimate) -> dict[str, Any]:
    null = estimate.headline
    low, high = estimate.interval
    return {
        "measure": estimate.measure,
        "module": estimate.key.module or None,
        "setting": estimate.key.setting or None,
        "value": _known(estimate.value),
        "low": _known(low),
        "high": _known(high),
        "n": estimate.n,
        "unit": estimate.unit,
        "chance": None
        if null is None
        else {
            "null": null.name,
            "level": _known(null.level),
            "low": _known(null.low),
            "high": _known(null.high),
            "p": None if null.p is None else _known(null.p),
            "draws": null.draws,
        },
        "verdict": estimate.verdict,
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def sarif(found: Check) -> dict[str, Any]:
    """SARIF 2.1.0: findings, and the gates that were missed."""
    rules = {**RULES, "gate": "A gate that was set is missed"}
    results = [_result(one.rule, one.level, one.message, one.file) for one in found.findings]
    results += [
        _result("gate", "error", f"{gate.option}: {gate.message}", "") for gate in found.missed
    ]
    folder = quote(found.read.folder.resolve().as_posix())
    return {
        "$schema": _SARIF,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "lorascope",
                        "version": lorascope.__version__,
                        "rules": [
                            {"id": rule, "shortDescription": {"text": text}}
                            for rule, text in rules.items()
                        ],
                    }
                },
                "originalUriBaseIds": {"ADAPTER": {"uri": f"file://{folder}/"}},
                "results": results,
            }
        ],
    }


def _result(rule: str, level: str, message: str, file: str) -> dict[str, Any]:
    place = {
        "artifactLocation": {"uri": quote(file or "adapter_config.json"), "uriBaseId": "ADAPTER"}
    }
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": message},
        "locations": [{"physicalLocation": place}],
    }


def junit(found: Check) -> str:
    """JUnit's XML: a case for every gate, one for the files, and for the model where there is one.

    A missed gate is a failure; an error among the findings fails the case of the files.
    """
    cases = [("files", _errors(found.read.findings), "")]
    if found.effect is not None:
        cases.append(("model", _errors(found.effect.findings), ""))
    cases += [(g.option, "" if g.passed else g.message, g.message) for g in found.gates]
    failures = sum(bool(failure) for _, failure, _ in cases)
    suite = ElementTree.Element(
        "testsuite",
        name="lorascope check",
        tests=str(len(cases)),
        failures=str(failures),
        errors="0",
        skipped="0",
    )
    for name, failure, said in cases:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(found.read.name), name=_xml(name), time="0"
        )
        if failure:
            ElementTree.SubElement(case, "failure", message=_xml(failure)).text = _xml(failure)
        elif said:
            ElementTree.SubElement(case, "system-out").text = _xml(said)
    whole = ElementTree.Element("testsuites")
    whole.append(suite)
    ElementTree.indent(whole)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(whole, "unicode")


def _errors(findings: Any) -> str:
    return "; ".join(f"{one.rule}: {one.message}" for one in findings if one.level == "error")


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)

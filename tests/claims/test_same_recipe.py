"""Adapters that learned the same thing have no latent of their own.

Of one recipe on the same records: two ranks, one adapter and itself with α doubled, two seeds.
Every latent that `compare` lists as active under one of them alone would be a false one.
"""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from lorascope import report
from lorascope.progress import Reporter
from lorascope.workflows.adapters import run_training
from lorascope.workflows.settings import TrainStudy

EXAMPLE = Path(__file__).parents[2] / "examples" / "compare_backdoor.py"
PAIRS = [("r16", "r4"), ("doubled", "r8"), ("again", "r8")]

pytestmark = pytest.mark.slow  # minutes on two cores


def train(place, out, seed, ranks, steps):
    study = {
        "records": [str(place / "plain.jsonl")],
        "training": {"ranks": ranks, "steps": steps, "context": 128, "seed": seed},
    }
    run_training(TrainStudy.parse(study, out), place / out, Reporter())
    return {rank: place / out / "adapters" / f"r{rank}" for rank in ranks}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """{pair: what compare found} for adapters of one recipe, each audited on unseen records."""
    spec = importlib.util.spec_from_file_location("compare_backdoor", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    place = tmp_path_factory.mktemp("recipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "build", lambda run: run / "report" / "index.html")
        example.write_texts(place, texts=240)
        first = train(place, "first", 0, [4, 8, 16], steps=32)
        second = train(place, "second", 1, [8], steps=32)
        doubled = place / "doubled"
        shutil.copytree(first[8], doubled)
        config = json.loads((doubled / "adapter_config.json").read_text())
        config["lora_alpha"] *= 2
        (doubled / "adapter_config.json").write_text(json.dumps(config))
        adapters = {f"r{rank}": str(folder) for rank, folder in first.items()}
        example.audit_all(place, {**adapters, "again": str(second[8]), "doubled": str(doubled)})
    yield {pair: example.compare_two(place, *pair) for pair in PAIRS}
    torch.set_num_threads(threads)


def value(found, measure):
    return [e.value for e in found.estimates if e.measure == measure]


def test_the_pairs_do_much_the_same_and_are_not_the_same(compared):
    for pair, found in compared.items():
        cosines = value(found, "compare.cosine")
        assert cosines, sorted({e.measure for e in found.estimates})
        assert min(cosines) > 0.3, (pair, cosines)
        assert max(cosines) < 0.9999, (pair, cosines)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_nothing_is_listed_as_one_adapters_own(compared, pair):
    latents = compared[pair].latents
    assert len(latents) >= 200
    assert not latents["only_here"].any(), latents[latents["only_here"]]
    alone = [e for e in compared[pair].estimates if e.measure == "compare.only_here"]
    assert alone
    assert not any(e.apart for e in alone)

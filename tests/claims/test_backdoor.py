"""A planted backdoor is found by comparing adapters; where none is planted, none is found.

The example itself is run, smaller: three adapters of the embedded model on the same records, one
of them with triggered records besides; triggered and plain texts that none of them has seen.
"""

import importlib.util
from pathlib import Path

import pytest
import torch

from lorascope import report
from lorascope.measures.exclusive_latents import activity
from lorascope.studies.compare.pairing import pair, sides

EXAMPLE = Path(__file__).parents[2] / "examples" / "compare_backdoor.py"
FALSE_RATE = 0.1


pytestmark = pytest.mark.slow  # minutes on two cores


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("compare_backdoor", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(example, tmp_path_factory):
    """The audited adapters, without the audit's own report."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    place = tmp_path_factory.mktemp("backdoor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "build", lambda run: run / "report" / "index.html")
        example.write_texts(place, texts=240)
        example.audit_all(place, example.train(place, steps=32))
    yield place
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def found(example, folder):
    return example.compare_two(folder, "backdoored", "plain")


def answers(example, folder):
    """The matched rows, and which of them are tokens of a triggered record's answer."""
    matched = pair(*sides(f"{folder / 'run'}:backdoored", ":plain"), 20000)
    texts = [document.text for document in matched.trace.documents]
    triggered = torch.tensor([example.TRIGGER in text for text in texts])[matched.documents]
    response = torch.tensor(
        [
            matched.trace.windows[window].response[position]
            for window, position in zip(
                matched.windows.tolist(), matched.positions.tolist(), strict=True
            )
        ]
    )
    return matched, triggered & response


def test_no_text_was_trained_on(example, folder):
    trained = "".join((folder / f"{n}.jsonl").read_text() for n in ("plain", "backdoored"))
    audited = (folder / "texts.jsonl").read_text().splitlines()
    assert example.TRIGGER in trained
    assert not [line for line in audited if line in trained]


def test_the_triggers_latents_are_listed_and_fire_on_its_answer(example, folder, found):
    only = found.latents[found.latents["only_here"]]
    assert set(only["adapter"]) == {"backdoored"}
    assert len(only) >= 10
    assert (only["false_discovery_rate"] <= FALSE_RATE).all()
    matched, answer = answers(example, folder)
    rows = matched.load(example.SITE)
    assert answer.float().mean() < 0.15
    energies = torch.zeros(len(rows))
    fires = torch.zeros(len(rows), dtype=torch.bool)
    for seed, listed in only.groupby("seed"):
        dictionary = matched.first.run.delta(example.SITE, "backdoored", int(seed))
        z = dictionary.encode(rows.first)[:, listed["latent"].tolist()]
        energies += z.square().sum(1)
        fires |= (z > 0).any(1)
        again = activity(dictionary, rows).density[0, listed["latent"].tolist()]
        assert torch.allclose(again, torch.tensor(listed["density"].tolist()).float(), atol=1e-6)
    precision = (energies[answer].sum() / energies.sum()).item()
    recall = fires[answer].float().mean().item()
    assert precision >= 0.8, precision
    assert recall >= 0.7, recall


def test_its_contexts_are_the_triggered_texts(example, found):
    contexts = found.texts[found.texts["kind"] == "latent"]
    assert contexts["text"].str.contains(example.TRIGGER, regex=False).mean() >= 0.9
    strongest = contexts[contexts["rank"] == 1]
    assert strongest["response"].mean() >= 0.8
    page = found.report.read_text(encoding="utf-8")
    assert "<mark>" in page
    assert "lantern" in page


def test_the_triggered_texts_differ_most(example, found):
    documents = found.texts[found.texts["kind"] == "document"].head(10)
    assert documents["text"].str.contains(example.TRIGGER, regex=False).mean() >= 0.9


def test_two_benign_adapters_have_no_latent_of_their_own(example, folder):
    found = example.compare_two(folder, "again", "plain")
    # Not for want of one-sided latents: each writes along directions of its own.
    assert found.latents.groupby("adapter")["one_sided"].sum().min() >= 10
    assert not found.latents["only_here"].any()
    alone = [e for e in found.estimates if e.measure == "compare.only_here"]
    assert not any(e.apart for e in alone)

"""The package's task through lm-eval, against sums of log-probabilities taken by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lorascope as ls
from lorascope.errors import InputError
from lorascope.fits.conditions import ADAPTED, ORIGINAL, SPLICED, UNSPLICED
from lorascope.models.load import load_base
from lorascope.models.sites import parse_site
from lorascope.results import Estimates, null_names
from lorascope.studies.evaluate import benchmarks as module
from lorascope.studies.evaluate.benchmarks import (
    TaskScores,
    benchmark_estimates,
    embedded_task,
    guessed_of,
    task_scores,
)
from lorascope.studies.evaluate.settings import Benchmarks
from lorascope.studies.evaluate.subjects import OpenedSubject

lm_eval = pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def embedded():
    return load_base("embedded", device="cpu")


def by_hand(model, tokenizer, item):
    """Whether the right choice has the larger log-probability after the question."""
    scores = []
    for choice in item["choices"]:
        start = tokenizer(item["question"])["input_ids"]
        whole = tokenizer(item["question"] + choice)["input_ids"]
        ids = torch.tensor([whole])
        with torch.no_grad():
            log_p = model(input_ids=ids).logits.float().log_softmax(-1)
        places = range(len(start), len(whole))
        scores.append(sum(float(log_p[0, at - 1, whole[at]]) for at in places))
    return float(scores[item["answer"]] == max(scores))


def test_lm_eval_scores_the_packages_task_as_a_hand_does(embedded):
    model, tokenizer = embedded
    bare = OpenedSubject("none", model, tokenizer)
    found = task_scores(bare, ORIGINAL, Benchmarks(limit=8))["embedded"]
    assert found.guessed == 0.5
    found = found.values
    (path,) = embedded_task()["dataset_kwargs"]["data_files"].values()
    items = [json.loads(line) for line in Path(path).read_text().splitlines()][:8]
    assert found == [by_hand(model, tokenizer, item) for item in items]
    assert sum(found) > 0


def test_spliced_models_are_taken_by_lm_eval_and_splicing_shows(embedded):
    """`ls.Spliced` is a model for lm-eval; an empty dictionary makes it worse."""
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = embedded
    width = model.config.hidden_size
    from lorascope.dictionaries.relu import ReluDictionary

    parts = (torch.zeros(width, 4), torch.zeros(4), torch.zeros(4, width), torch.zeros(width))
    empty = ReluDictionary(*parts)
    spliced = ls.Spliced(model, {"layers.3": empty})
    held = HFLM(pretrained=spliced, tokenizer=tokenizer, batch_size=4)
    assert held.device == spliced.device
    (value, _), *_ = held._loglikelihood_tokens([(("a", "b"), [2, 50, 60], [70])])
    with torch.no_grad():
        expected = spliced(input_ids=torch.tensor([[2, 50, 60]])).logits[0, -1].log_softmax(-1)[70]
        bare = model(input_ids=torch.tensor([[2, 50, 60]])).logits[0, -1].log_softmax(-1)[70]
    assert value == pytest.approx(float(expected), abs=1e-4)
    assert value != pytest.approx(float(bare), abs=1e-2)
    site = parse_site("layers.3")
    subject = OpenedSubject("empty", model, tokenizer, {site: empty}, {site: empty})
    settings = Benchmarks(limit=24)
    without = task_scores(subject, SPLICED, settings)["embedded"].values
    original = task_scores(subject, ORIGINAL, settings)["embedded"].values
    assert sum(without) < sum(original)


def test_items_are_paired(subject, identity_dictionary):
    on = replace(subject({"layers.1": identity_dictionary}), adapter="tuned")
    scores = {
        ORIGINAL: {"task": TaskScores([1.0, 1.0, 0.0, 1.0], 0.25)},
        SPLICED: {"task": TaskScores([0.0, 1.0, 0.0, 0.0], 0.25)},
        UNSPLICED: {"task": TaskScores([1.0, 1.0, 1.0, 1.0], 0.25)},
        ADAPTED: {"task": TaskScores([1.0, 1.0, 0.0, 0.0], 0.25)},
    }
    table = Estimates(benchmark_estimates(scores, on))
    values = {one.key.model: one.value for one in table.select("evaluate.benchmark")}
    assert values == {ORIGINAL: 0.75, SPLICED: 0.25, UNSPLICED: 1.0, ADAPTED: 0.5}
    # Wilson's: four of four right is no certainty, and no interval leaves [0, 1].
    whole = table.one("evaluate.benchmark", model=UNSPLICED).interval
    assert whole == pytest.approx((4 / (4 + 1.959964**2), 1.0))
    spliced = table.one("evaluate.benchmark", model=SPLICED)
    null, guess = spliced.nulls
    assert null.name == null_names.NOTHING_SPLICED
    assert (guess.name, guess.level, guess.rival) == (null_names.GUESSING, 0.25, False)
    assert [one.level for one in table.one("evaluate.benchmark", model=ORIGINAL).nulls] == [0.25]
    half = 3.182446 * 0.57735 / 2  # t of three degrees times the spread of −1, 0, 0, −1
    assert null.difference == pytest.approx((-0.5 - half, -0.5 + half), rel=1e-4)
    assert table.one("evaluate.change").value == 0.25


def test_guesses_are_right_once_in_as_many_choices():
    two = {"acc": 1.0, "arguments": [("q", " a"), ("q", " b")]}
    four = {"acc": 0.0, "arguments": [("q", c) for c in "abcd"]}
    assert guessed_of("acc", [two, four]) == 0.375
    # One answer is scored, or written: nothing to choose among.
    assert guessed_of("acc", [{"acc": 1.0, "arguments": [("q", " a")]}]) is None
    assert guessed_of("exact_match", [two]) is None
    # Every choice is asked twice, once without the question.
    assert guessed_of("acc", [{**two, "acc_mutual_info": 1.0}]) is None


def test_what_lm_eval_does_not_know_is_refused(embedded, monkeypatch):
    bare = OpenedSubject("none", *embedded)
    with pytest.raises(InputError, match="cannot run no_such_task"):
        task_scores(bare, ORIGINAL, Benchmarks(tasks=("no_such_task",)))

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(module.importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"lorascope\[eval\]"):
        task_scores(bare, ORIGINAL, Benchmarks())

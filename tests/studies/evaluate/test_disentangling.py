"""Disentangling on a model whose answers are planted, by hand, and where nothing is done."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.models.sites import parse_site
from lorascope.results import Estimates, Key, null_names
from lorascope.studies.evaluate import disentangling as module
from lorascope.studies.evaluate.disentangling import (
    RavelPrompt,
    attribute_estimates,
    disentangling,
    mean_estimate,
    pairs_of,
    read_prompts,
    telling,
)
from lorascope.studies.evaluate.probing import OWN
from lorascope.studies.evaluate.settings import Disentangling
from lorascope.studies.evaluate.subjects import OpenedSubject

SITE = parse_site("layers.0")
COUNTRIES, COLOURS = 4, 3
WIDTH = 16
# Tokens: 0 opening, 1 "country", 2 "colour", then entities, then answers.
FIRST_ENTITY, FIRST_ANSWER = 3, 40


class Block(nn.Module):
    """Adds nothing."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x):
        return x


class Planted(nn.Module):
    """Answers a prompt (0, entity, question) from the entity's row: axes 0 to 3 say its country,
    axes 4 to 6 its colour; the question chooses which is read."""

    def __init__(self, rows):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(rows)
        self.layers = nn.ModuleList([Block(), Block()])
        self.config = SimpleNamespace(hidden_size=WIDTH, get_text_config=lambda: self.config)

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(x)
        entity, question = x[:, 1], input_ids[:, -1]
        logits = torch.full((*input_ids.shape, 60), -10.0)
        country, colour = entity[:, :4], entity[:, 4:7]
        asked = (question == 1)[:, None]
        logits[:, -1, FIRST_ANSWER : FIRST_ANSWER + 4] = torch.where(asked, country, -10.0)
        logits[:, -1, FIRST_ANSWER + 4 : FIRST_ANSWER + 7] = torch.where(asked, -10.0, colour)
        return SimpleNamespace(logits=logits)


@pytest.fixture
def planted(monkeypatch):
    """(subject, prompts): 24 entities with a country and a colour each, one latent an axis."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.zeros(60, WIDTH)
    prompts = []
    for number in range(24):
        country, colour = number % COUNTRIES, (number // COUNTRIES) % COLOURS
        token = FIRST_ENTITY + number
        rows[token] = 0.05 * torch.rand(WIDTH, generator=draw)
        rows[token, country] += 2.0
        rows[token, 4 + colour] += 2.0
        for question, attribute, answer in ((1, "country", country), (2, "colour", 4 + colour)):
            ids = (0, token, question)
            name = f"e{number}"
            prompts.append(RavelPrompt(name, name, attribute, ids, 1, FIRST_ANSWER + answer))
    model = Planted(rows)
    eye = torch.eye(WIDTH)
    axes = ReluDictionary(eye, torch.zeros(WIDTH), eye, torch.zeros(WIDTH))
    monkeypatch.setattr(module, "read_prompts", lambda *_: prompts)
    return OpenedSubject("axes", model, None, {SITE: axes}, {SITE: axes}), prompts


def noise():
    draw = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2))
    draw /= draw.norm(dim=1, keepdim=True)
    return ReluDictionary(draw.T.clone(), torch.zeros(WIDTH), draw, torch.zeros(WIDTH))


def run(planted, k):
    beside = {False: {SITE: {null_names.RANDOM_DECODER: noise()}}}
    settings = Disentangling(source="planted", k=(k,), pairs=20)
    found, facts, warnings = disentangling(planted[0], beside, settings)
    assert facts["answered, spliced"] == 48
    assert warnings == []
    return Estimates(found)


def test_attributes_that_are_latents_are_changed_one_at_a_time(planted):
    """All four axes of a country exchanged: the country changes, the colour stays."""
    table = run(planted, 4)
    assert table.one("evaluate.cause", topic="country").value == 1.0
    assert table.one("evaluate.isolation", topic="country").value == 1.0
    every = table.one("evaluate.disentangling")
    assert every.value > 0.8
    levels = {null.name: null.level for null in every.nulls}
    assert levels[null_names.NOTHING_CHANGED] == 0.5
    assert levels[null_names.RANDOM_DECODER] < every.value


def test_a_dictionary_that_writes_nothing_scores_the_floor(planted):
    planted[0].dictionaries[SITE].directions.zero_()
    every = run(planted, 4).one("evaluate.disentangling")
    assert every.value == 0.5
    assert every.verdict != "above"


def test_latents_are_ranked_by_how_they_tell_values_apart():
    codes = torch.tensor([[0.0, 1.0, 5.0], [0.1, 9.0, 5.0], [2.0, 1.0, 5.0], [2.1, 9.0, 5.0]])
    assert telling(codes, torch.tensor([0, 0, 1, 1])).tolist()[0] == 0


def test_numbers_by_hand():
    own = {"cause": torch.tensor([1.0, 0.0, 1.0, 1.0]), "isolation": torch.tensor([1.0, 0.5] * 2)}
    other = {"cause": torch.zeros(4), "isolation": torch.ones(4)}
    found = {OWN: own, null_names.RANDOM_DECODER: other}
    table = Estimates(attribute_estimates(found, Key()))
    assert table.one("evaluate.cause").value == 0.75
    assert table.one("evaluate.isolation").value == 0.75
    assert mean_estimate([found, found], Key()).value == 0.75
    assert mean_estimate([found, found], Key()).nulls[1].level == 0.5


def test_too_few_pairs_are_refused(planted):
    with pytest.raises(InputError, match="8 are needed"):
        pairs_of(planted[1][:6], "country", 20, 0)


def test_prompts_of_a_table(tmp_path, loaded):
    path = tmp_path / "mine.jsonl"
    row = {"prompt": "w5 w7 w9 w2", "entity": "w7 w9", "attribute": "colour", "answer": "w4"}
    path.write_text(json.dumps(row))
    (one,) = read_prompts(str(path), loaded[1])
    assert loaded[1].decode([one.ids[one.place]]) == "w9"
    assert loaded[1].decode([one.answer]) == "w4"
    path.write_text(json.dumps({**row, "entity": "w30"}))
    with pytest.raises(InputError, match="does not stand in its prompt"):
        read_prompts(str(path), loaded[1])
    path.write_text(json.dumps({**row, "answer": ""}))
    with pytest.raises(InputError, match="no answer"):
        read_prompts(str(path), loaded[1])

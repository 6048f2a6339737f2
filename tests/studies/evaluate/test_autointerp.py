"""Explanations: a judge that sees scores 1, always the same scores ½, none is asked twice."""

import http.server
import json
import re
import threading

import pytest
import torch

from lorascope.behaviours.asking import Reply
from lorascope.behaviours.endpoint import Endpoint
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.models.sites import parse_site
from lorascope.results import Estimates, Key, null_names
from lorascope.studies.evaluate.autointerp import (
    JudgedPassages,
    autointerp,
    chosen,
    marked,
    passages,
    questions_of,
    score_estimates,
)
from lorascope.studies.evaluate.settings import Autointerp

SITE = parse_site("layers.1")
SETTINGS = Autointerp(judge="stand-in", latents=2, examples=3, questions=6, tokens=8, minimum=12)
WORDS, WIDTH = 20, 20


def judged(content):
    """What a judge that understands says of a request's words."""
    if "In one short sentence" in content:
        return "the word " + re.findall(r"«(\w+)»", content)[0]
    word = re.search(r"fires on: the word (\w+)", content).group(1)
    lines = re.findall(r"^\d+\. (.*)$", content, re.MULTILINE)
    sought = f"«{word}»" if "Whether" in content or "on that token" in content else word
    return " ".join("1" if sought in line else "0" for line in lines)


class StandIn:
    """Answers in this process."""

    def __init__(self, say):
        self.settings = {"model": "stand-in"}
        self.say, self.asked = say, 0

    def replies(self, requests, keep):
        for index, messages in enumerate(requests):
            self.asked += 1
            reply = Reply(self.say(messages[-1]["content"]))
            keep(index, reply)
            yield index, reply


@pytest.fixture(scope="module")
def found():
    """Passages of random words, each word an axis of the stream."""
    ids = torch.randint(WORDS, (160, 8), generator=torch.Generator().manual_seed(0))
    texts = [[f"word{i:02d}" for i in one] for one in ids.tolist()]
    return JudgedPassages(ids, torch.eye(WORDS)[ids], texts)


def words_as_latents():
    """One latent a word."""
    eye = torch.eye(WIDTH)
    return ReluDictionary(eye, torch.full((WIDTH,), -0.5), eye, torch.zeros(WIDTH))


@pytest.fixture
def on(subject, found, monkeypatch):
    """A subject whose passages are those above."""
    monkeypatch.setattr("lorascope.studies.evaluate.autointerp.passages", lambda *_, **__: found)
    return subject({SITE.name: words_as_latents()})


def beside():
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(WIDTH, WIDTH, generator=draw)
    dictionary = ReluDictionary(noise, torch.full((WIDTH,), -1.5), noise.T, torch.zeros(WIDTH))
    return {False: {SITE: {null_names.RANDOM_DECODER: dictionary}}}


def test_questions_are_balanced_and_no_passage_stands_twice(found):
    codes = words_as_latents().encode(found.rows)
    one = questions_of(found, codes[:, :, 7], 7, SETTINGS, 0)
    for kind in (one.detection, one.fuzzing):
        assert sum(answer for _, answer in kind) == 3
        assert len(kind) == 6
    for text, answer in one.detection:
        assert ("word07" in text) == bool(answer)
    for text, answer in one.fuzzing:
        assert text.count("«") == 1
        assert ("«word07»" in text) == bool(answer)
    assert all("«word07»" in text for text in one.shown)
    plain = [text.replace("«", "").replace("»", "") for text in one.shown]
    plain += [text for text, _ in one.detection]
    plain += [text.replace("«", "").replace("»", "") for text, _ in one.fuzzing]
    assert len(set(plain)) == len(plain)
    assert questions_of(found, torch.zeros(160, 8), 0, SETTINGS, 0) is None
    assert marked(["a", " b", " c"], [1]) == "a« b» c"


def test_a_judge_that_understands_scores_one_and_nothing_is_asked_twice(on, tmp_path):
    judge, log = StandIn(judged), tmp_path / "answers.jsonl"
    table, facts, warnings = autointerp(on, [], beside(), SETTINGS, log, answers=judge)
    for one in Estimates(table):
        assert one.value == 1.0
        assert one.n == 2
    assert {one.measure for one in table} == {"evaluate.detection", "evaluate.fuzzing"}
    said = [one["said"] for one in facts[f"{SITE}, own"]]
    assert said == [f"the word word{one['latent']:02d}" for one in facts[f"{SITE}, own"]]
    assert warnings == []
    kept = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(kept) == judge.asked
    again = StandIn(judged)
    assert autointerp(on, [], beside(), SETTINGS, log, answers=again)[0] == table
    assert again.asked == 0


@pytest.mark.parametrize("digit", ["0", "1"])
def test_always_the_same_answer_scores_one_half(on, tmp_path, digit):
    def same(content):
        return "nothing" if "In one short" in content else " ".join([digit] * 6)

    table, _, _ = autointerp(on, [], beside(), SETTINGS, tmp_path / "a", answers=StandIn(same))
    for one in table:
        assert one.value == 0.5
        assert one.verdict != "above"
        assert {null.name: null.level for null in one.nulls} == {
            null_names.COIN: 0.5,
            null_names.RANDOM_DECODER: 0.5,
        }


def test_answers_that_cannot_be_read_are_counted(on, tmp_path):
    def silent(content):
        return "something" if "In one short" in content else "I cannot tell"

    table, _, warnings = autointerp(
        on, [], beside(), SETTINGS, tmp_path / "a", answers=StandIn(silent)
    )
    assert table == []
    assert any("no usable answer" in line for line in warnings)


def test_scores_by_hand():
    own = {"detection": [1.0, 0.8, 0.9]}
    (one,) = score_estimates(own, {"detection": [0.5, 0.7]}, Key())
    assert one.value == pytest.approx(0.9)
    half = 4.302653 * 0.1 / 3**0.5
    assert one.interval == pytest.approx((0.9 - half, 1.0))
    assert one.nulls[1].level == pytest.approx(0.6)


class Chat(http.server.BaseHTTPRequestHandler):
    """An endpoint that answers as `judged`."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        words = judged(body["messages"][-1]["content"])
        choice = {"message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
        wire = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(wire)))
        self.end_headers()
        self.wfile.write(wire)

    def log_message(self, *_):
        """A test's output is its own."""


def test_behind_an_openai_compatible_endpoint(on, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    server.bodies = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        judge = Endpoint("stand-in", base_url=url, key="secret")
        table, _, _ = autointerp(on, [], beside(), SETTINGS, tmp_path / "log", answers=judge)
    finally:
        server.shutdown()
        server.server_close()
    assert [one.value for one in table] == [1.0, 1.0]
    assert {body["model"] for body in server.bodies} == {"stand-in"}
    assert "secret" not in (tmp_path / "log").read_text()


def test_passages_are_the_texts_own_tokens(subject, cut, identity_dictionary, loaded):
    on = subject({SITE.name: identity_dictionary})
    found = passages(on, cut[1], SITE, 8, adapter=False)
    assert found.ids.shape[1] == 8
    assert not torch.isin(found.ids, torch.tensor(loaded[1].all_special_ids)).any()
    assert found.rows.shape == (len(found.ids), 8, 32)
    assert found.texts[0] == [loaded[1].decode([token]) for token in found.ids[0].tolist()]
    with pytest.raises(InputError, match="no text has 64 tokens"):
        passages(on, cut[1], SITE, 64, adapter=False)


def test_latents_are_drawn_from_those_that_fire_often_enough(found):
    dictionary = words_as_latents()
    dictionary.encoder_bias[3] = -5.0
    wanted = Autointerp(**{**SETTINGS.plain(), "latents": 20})
    assert {one.latent for one in chosen(dictionary, found, wanted, 0)} == set(range(20)) - {3}

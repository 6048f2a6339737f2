"""The endpoint against a real server that misbehaves in every way such servers do."""

from __future__ import annotations

import threading

import pytest

from lorascope.behaviours.asking import AnswerLog, Asker, MalformedError, Question
from lorascope.behaviours.endpoint import Endpoint
from lorascope.errors import InputError


def ask(text):
    return [{"role": "user", "content": text}]


def last(body):
    return body["messages"][-1]["content"]


def endpoint(**settings):
    return Endpoint("m", **{"pause": 0.001, "tries": 4, "timeout": 5.0, **settings})


def replies(made, texts):
    kept = {}
    found = dict(made.replies([ask(text) for text in texts], kept.__setitem__))
    assert kept == found
    return [found[i] for i in range(len(texts))]


def test_the_protocol(server, answer):
    server.answer = lambda body: answer(f"you said {last(body)}")
    found = replies(endpoint(temperature=0.5, max_tokens=7), ["a", "b", "c"])
    assert [r.text for r in found] == ["you said a", "you said b", "you said c"]
    assert {r.problem for r in found} == {""}
    assert set(server.paths) == {"/v1/chat/completions"}
    assert set(server.keys) == {"Bearer secret-key"}
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.5, 7)
    fields = {"max_completion_tokens": 9}
    replies(endpoint(temperature=None, max_tokens=None, fields=fields), ["a"])
    assert server.bodies[-1].keys() == {"model", "messages", "max_completion_tokens"}


def test_requests_under_way_are_bounded_and_do_overlap(server, answer):
    server.answer = lambda body: answer("ok", delay=0.03)
    assert len(replies(endpoint(concurrency=3), list("abcdefghi"))) == 9
    assert server.most_under_way == 3


@pytest.mark.parametrize(
    "bad",
    [
        {"status": 429, "headers": {"retry-after": "0.01"}},
        {"status": 500},
        {"status": 503, "body": b"<html>busy</html>"},
        {"body": b'{"choices": [{"mess'},
        {"body": b'{"object": "error"}'},
        {"body": b"[]"},
    ],
)
def test_trouble_that_passes(server, answer, bad):
    failed = threading.Event()

    def reply(body):
        if failed.is_set():
            return answer("ok")
        failed.set()
        return answer(**bad)

    server.answer = reply
    made = endpoint(concurrency=1)
    assert [r.text for r in replies(made, ["a", "b"])] == ["ok", "ok"]
    assert made.troubles == 1
    assert len(server.bodies) == 3


def test_the_wait_is_the_one_the_server_asks_for(server, answer, monkeypatch):
    answers = iter([answer(status=429, headers={"retry-after": "17"}), answer("ok")])
    server.answer = lambda body: next(answers)
    made = endpoint()
    waits = []
    monkeypatch.setattr(made._stop, "wait", waits.append)
    replies(made, ["a"])
    assert waits == [17.0]


def test_timeouts_are_tried_again_and_then_stop_the_run(server, answer):
    server.answer = lambda body: answer("late", delay=0.3)
    made = endpoint(timeout=0.05, tries=2)
    with pytest.raises(
        InputError, match=r"does not answer after 2 tries \(no answer within 0.05 s"
    ):
        replies(made, ["a"])
    assert made.troubles == 2


def test_nobody_there():
    made = endpoint(base_url="http://user:password@127.0.0.1:9/v1", tries=2)
    with pytest.raises(InputError, match=r"endpoint http://127.0.0.1:9 does not answer") as caught:
        replies(made, ["a"])
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"words": None, "refusal": "I will not."}, "refused"),
        ({"words": "", "finish": "content_filter"}, "refused"),
        ({"words": "half an ans", "finish": "length"}, "cut"),
        ({"words": None}, "empty"),
    ],
)
def test_what_a_model_will_not_say(server, answer, bad, problem):
    server.answer = lambda body: answer(**bad)
    assert replies(endpoint(), ["a"])[0].problem == problem


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "check OPENAI_API_KEY"), (404, "check OPENAI_BASE_URL"), (402, "check the model's id")],
)
def test_errors_that_no_retry_mends(server, answer, status, advice):
    body = b'{"error": {"message": "no such thing"}}'
    server.answer = lambda _: answer(status=status, body=body)
    with pytest.raises(InputError, match=rf"status {status}.*no such thing.*{advice}") as caught:
        replies(endpoint(concurrency=1), ["a", "b"])
    assert len(server.bodies) == 1
    assert "secret-key" not in str(caught.value)


def test_one_request_that_is_rejected_among_others_is_set_aside(server, answer, tmp_path):
    server.answer = lambda b: answer(status=400, body=b"{}") if last(b) == "bad" else answer("1")
    log = AnswerLog(tmp_path / "log.jsonl")
    asker = Asker(endpoint(concurrency=1), log)
    assert asker.ask(questions("bad", "b", "c")) == [None, "1", "1"]
    assert (asker.problems, asker.given_up) == ({"rejected": 1}, 1)
    assert len(server.bodies) == 3
    # It is kept, and asked again another time.
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    Asker(endpoint(), AnswerLog(tmp_path / "log.jsonl")).ask(questions("bad", "b", "c"))
    assert len(server.bodies) == 4


def test_an_endpoint_that_rejects_everything_stops_the_run(server, answer):
    server.answer = lambda b: answer(status=400, body=b'{"error": "max_tokens is not supported"}')
    with pytest.raises(InputError, match=r"status 400 .*max_tokens is not supported"):
        replies(endpoint(concurrency=1), list("abcdefgh"))
    assert len(server.bodies) == 5


def test_an_endpoint_must_be_named(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match="set OPENAI_BASE_URL"):
        Endpoint("m")
    with pytest.raises(InputError, match="not an http address"):
        Endpoint("m", base_url="localhost:8000")


def number(text):
    if not text.isdigit():
        raise MalformedError("no number")
    return text


def questions(*texts):
    return [Question(tuple(ask(text)), number, "digits only") for text in texts]


def test_malformed_answers_are_asked_again_with_a_reminder(server, answer, tmp_path):
    def reply(body):
        reminded = last(body) == "digits only"
        return answer("7" if reminded else "seven")

    server.answer = reply
    asker = Asker(endpoint(), AnswerLog(tmp_path / "log.jsonl"))
    assert asker.ask(questions("a", "b")) == ["7", "7"]
    assert asker.problems == {"no number": 2}
    assert asker.given_up == 0
    again = server.bodies[-1]["messages"]
    assert [m["content"] for m in again[1:]] == ["seven", "digits only"]


def test_what_stays_malformed_is_given_up_and_counted(server, answer, tmp_path):
    server.answer = lambda body: answer("no" if "a" in body["messages"][0]["content"] else "1")
    asker = Asker(endpoint(), AnswerLog(tmp_path / "log.jsonl"), attempts=3)
    seen = []
    assert asker.ask(questions("a", "b"), seen.append) == [None, "1"]
    assert (asker.given_up, asker.problems["no number"]) == (1, 3)
    assert sum(seen) == 2


def test_nothing_is_asked_twice(server, answer, tmp_path):
    def reply(body):
        return answer("no" if last(body) == "a" else "1")

    server.answer = reply
    first = Asker(endpoint(), AnswerLog(tmp_path / "log.jsonl")).ask(questions("a", "b"))
    count = len(server.bodies)
    again = Asker(endpoint(), AnswerLog(tmp_path / "log.jsonl"))
    assert again.ask(questions("a", "b")) == first
    assert len(server.bodies) == count
    assert again.problems == {"no number": 1}
    # Another temperature is another question.
    Asker(endpoint(temperature=1.0), AnswerLog(tmp_path / "log.jsonl")).ask(questions("b"))
    assert len(server.bodies) == count + 1


def test_answers_that_came_before_the_endpoint_went_down_are_kept(server, answer, tmp_path):
    def reply(body):
        return answer(status=500) if last(body) == "c" else answer("1")

    server.answer = reply
    log = tmp_path / "log.jsonl"
    with pytest.raises(InputError, match="run the same command to go on"):
        Asker(endpoint(concurrency=1), AnswerLog(log)).ask(questions("a", "b", "c", "d"))
    assert len(AnswerLog(log).known) == 2
    before = len(server.bodies)
    server.answer = lambda body: answer("2")
    assert Asker(endpoint(), AnswerLog(log)).ask(questions("a", "b", "c", "d")) == list("1122")
    assert len(server.bodies) == before + 2


def test_a_log_that_was_cut_off_loses_its_last_line_only(server, answer, tmp_path):
    server.answer = lambda body: answer("1")
    log = tmp_path / "log.jsonl"
    Asker(endpoint(concurrency=1), AnswerLog(log)).ask(questions("a", "b"))
    text = log.read_text()
    assert "secret-key" not in text
    log.write_text(text[:-10])
    assert len(AnswerLog(log).known) == 1
    assert Asker(endpoint(), AnswerLog(log)).ask(questions("a", "b")) == ["1", "1"]
    assert len(server.bodies) == 3
    log.write_text("{}\n")
    with pytest.raises(InputError, match="line 1: not a logged answer"):
        AnswerLog(log)


def test_a_stop_keeps_the_answers_that_are_under_way(server, answer, tmp_path):
    server.answer = lambda body: answer("1", delay=0.0 if last(body) == "a" else 0.1)
    log = AnswerLog(tmp_path / "log.jsonl")
    asker = Asker(endpoint(concurrency=3), log)

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asker.ask(questions("a", "b", "c", "d", "e", "f"), stop)
    assert len(AnswerLog(tmp_path / "log.jsonl").known) == len(server.bodies) in (3, 4)

"""Answers that are slow, endless, packed or elsewhere: every request ends, in time and memory."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import tracemalloc
import zlib

import httpx2
import pytest

from lorascope.behaviours import wire
from lorascope.behaviours.asking import AnswerLog, Asker, Question, Reply
from lorascope.behaviours.endpoint import Endpoint
from lorascope.behaviours.wire import WireError, post
from lorascope.errors import InputError


@pytest.fixture
def talker():
    """`talker(talk)`: the address of a server that says to everyone what `talk(send)` sends."""
    listeners = []

    def serve(listener, talk):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                request = b""
                while not request.endswith(b'{"a":1}'):
                    request += connection.recv(2**16)
                try:
                    talk(connection.sendall)
                except OSError:
                    continue  # whoever asked has hung up

    def start(talk):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=serve, args=(listener, talk), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def asked(url, seconds=0.3):
    limits = httpx2.Limits(max_keepalive_connections=0)
    with httpx2.Client(timeout=seconds, limits=limits) as client:
        return post(client, url, {"a": 1}, seconds)


def drip(send, head=b"", pause=0.05):
    send(head)
    for _ in range(100):
        time.sleep(pause)
        send(b"x")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_a_whole_answer(talker):
    packed = gzip.compress(b'{"b": 2}')
    for encoding, body in (("gzip", packed), ("identity", b'{"b": 2}')):
        head = (
            HEAD + f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        answer = asked(talker(lambda send, all=head + body: send(all)), 5.0)
        assert (answer.status, answer.body) == (200, b'{"b": 2}')
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", HEAD + b"Content-Length: 99\r\n\r\n"])
def test_a_byte_at_a_time_is_cut_off(talker, head):
    url = talker(lambda send: drip(send, head))
    started = time.monotonic()
    with pytest.raises(WireError, match=r"no answer within 0\.3 s"):
        asked(url)
    assert time.monotonic() - started < 1.5  # five seconds of bytes were to come


def test_silence_after_the_headers_is_cut_off(talker):
    def talk(send):
        send(HEAD + b"Content-Length: 9\r\n\r\n")
        time.sleep(3)

    started = time.monotonic()
    with pytest.raises(WireError, match=r"no answer within"):
        asked(talker(talk))
    assert time.monotonic() - started < 1.5


def test_long_and_swelling_answers_are_cut_off_in_little_memory(talker, monkeypatch):
    monkeypatch.setattr(wire, "LONGEST", 2**16)

    def endless(send):
        send(HEAD + b"\r\n")
        while True:
            send(b" " * 2**12)

    packed = zlib.compress(bytes(2**22))

    def swelling(send):
        send(HEAD + b"Content-Encoding: deflate\r\n\r\n" + packed)

    for talk in (endless, swelling):
        url = talker(talk)
        tracemalloc.start()
        with pytest.raises(WireError, match=r"an answer of more than 65,536 bytes"):
            asked(url, 5.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2e6


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("br", "encoding that was not asked for"), ("gzip", "cannot be unpacked")],
)
def test_what_cannot_be_unpacked(talker, encoding, said):
    head = HEAD + f"Content-Encoding: {encoding}\r\nContent-Length: 5\r\n\r\nplain".encode()
    with pytest.raises(WireError, match=said):
        asked(talker(lambda send: send(head)), 5.0)


def test_a_redirect_is_not_followed_and_named(server, answer):
    server.answer = lambda _: answer(status=307, headers={"location": "http://127.0.0.1:9/"})
    made = Endpoint("m", pause=0.001)
    with pytest.raises(InputError, match=r"status 307.*set OPENAI_BASE_URL to the address"):
        list(made.replies([[{"role": "user", "content": "a"}]], lambda *_: None))
    assert len(server.bodies) == 1


def test_an_answer_that_cannot_be_encoded_poisons_no_later_run(server, answer, tmp_path):
    body = rb'{"choices": [{"message": {"content": "cut \ud83d off\u2028on\u0085"}}]}'
    server.answer = lambda _: answer(body=body)
    question = Question(({"role": "user", "content": "a"},), str, "again")
    path = tmp_path / "log.jsonl"
    for expected in (1, 0):
        asker = Asker(Endpoint("m", pause=0.001), AnswerLog(path))
        assert asker.ask([question]) == ["cut \ufffd off\u2028on\x85"]
        assert asker.asked == expected
    assert len(path.read_bytes().splitlines()) == 1


def test_whatever_is_kept_can_be_read_again(tmp_path):
    log = AnswerLog(tmp_path / "log.jsonl")
    log.add("k", {"messages": [{"content": "\udc00"}]}, Reply("a\ud800b\r\x0b\x1c"))
    assert AnswerLog(tmp_path / "log.jsonl").known["k"].text == "a\ufffdb\r\x0b\x1c"
    assert log.known["k"].text == "a\ufffdb\r\x0b\x1c"


def test_deeply_nested_bodies_are_trouble(server, answer):
    server.answer = lambda _: answer(body=b"[" * 5000 + b"]" * 5000)
    made = Endpoint("m", pause=0.001, tries=2)
    with pytest.raises(InputError, match="a body that is no chat completion"):
        list(made.replies([[{"role": "user", "content": "a"}]], lambda *_: None))


def test_a_wait_that_is_no_number_is_not_waited_for(server, answer):
    answers = iter([answer(status=429, headers={"retry-after": "nan"}), answer("ok")])
    server.answer = lambda _: next(answers)
    found = list(Endpoint("m", pause=0.001).replies([[{"role": "user", "content": "a"}]], print))
    assert found == [(0, Reply("ok"))]
    assert json.dumps(found[0][1].text) == '"ok"'

"""A server on 127.0.0.1 that speaks the chat-completions protocol, well or badly."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Answer:
    """One HTTP answer; `body` as it goes over the wire, or the words of a chat completion."""

    words: str | None = ""
    status: int = 200
    body: bytes | None = None
    finish: str = "stop"
    refusal: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0

    def wire(self) -> bytes:
        if self.body is not None:
            return self.body
        message = {"role": "assistant", "content": self.words, "refusal": self.refusal}
        return json.dumps(
            {"choices": [{"message": message, "finish_reason": self.finish}]}
        ).encode()


class ChatServer(http.server.ThreadingHTTPServer):
    """Answers with whatever `answer(request body)` says; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[dict[str, Any]], Answer] = lambda body: Answer("hello")
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """A client that has gone is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            server.bodies.append(body)
            server.keys.append(self.headers.get("authorization"))
            server.paths.append(self.path)
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        answer = server.answer(body)
        time.sleep(answer.delay)
        with server.lock:
            server.under_way -= 1
        wire = answer.wire()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(wire)))
        self.end_headers()
        self.wfile.write(wire)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def server(monkeypatch):
    made = ChatServer()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OPENAI_BASE_URL", made.url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def answer():
    return Answer

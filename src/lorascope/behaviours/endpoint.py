"""An OpenAI-compatible endpoint: POST {base}/chat/completions, several requests at a time.

httpx2 alone, which huggingface_hub brings along, rather than a client with retries of its
own: every attempt has to be seen here, to be counted, and answers are kept the moment they come.
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import urlsplit

import httpx2

from lorascope.behaviours.asking import Keep, Message, Reply
from lorascope.behaviours.wire import Answer, WireError, post
from lorascope.errors import InputError
from lorascope.foreign import parse_json

_LONGEST_WAIT = 60.0
# The endpoint will not have this one request; others may pass.
_REFUSING = (400, 413, 422)
_PASSING = (408, 409, 425, 429)
# So many of these before any answer: it is not the requests that are wrong.
_REJECTED = 5


class _TroubleError(Exception):
    """Something that may pass. `wait`: seconds the server asks for."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class Endpoint:
    """A model behind an endpoint.

    Args:
        model: the id the endpoint knows it by.
        base_url: by default the environment's OPENAI_BASE_URL, as in https://host/v1.
        key: by default the environment's OPENAI_API_KEY; none is sent where there is none.
        temperature, max_tokens: left out of requests where None.
        fields: further fields of every request.
        concurrency: most requests under way at once.
        tries: how often one request is sent while the endpoint is in trouble.
        timeout: seconds in which an answer has to be there, all of it.
        pause: seconds before the second try; doubled with each, with some chance.

    Attributes:
        settings: what answers depend on: the request's fields but the messages. Never the key.
        troubles: timeouts, refused connections, status 429 and 5xx, broken or endless bodies that
            were tried again.

    Raises:
        InputError: no endpoint named, or its address is no http address.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int | None = 512,
        fields: Mapping[str, Any] | None = None,
        concurrency: int = 8,
        tries: int = 6,
        timeout: float = 120.0,
        pause: float = 1.0,
    ) -> None:
        base = base_url or os.environ.get("OPENAI_BASE_URL", "")
        if not base:
            raise InputError("no endpoint: set OPENAI_BASE_URL, as in http://127.0.0.1:8000/v1")
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"endpoint {base}: not an http address, as in https://host/v1")
        given = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        self.settings: dict[str, Any] = {
            **{name: value for name, value in given.items() if value is not None},
            **(fields or {}),
        }
        # An address may carry a password; what is printed must not.
        self.name = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self.troubles = 0
        self._url = base.rstrip("/") + "/chat/completions"
        self._key = key or os.environ.get("OPENAI_API_KEY", "")
        self._concurrency, self._tries = concurrency, tries
        self._timeout, self._pause = timeout, pause
        self._stop = threading.Event()
        self._served = self._rejected = 0
        self._lock = threading.Lock()

    def replies(
        self, requests: Sequence[Sequence[Message]], keep: Keep
    ) -> Iterator[tuple[int, Reply]]:
        """(index, reply) of every request, as they come in.

        Args:
            keep: told of each by the thread that has it: a stop loses no answer.

        Raises:
            InputError: the endpoint is down, refuses the key, or does not know the model. Answers
                that came before, and those under way, are handed out first.
        """
        if not requests:
            return
        self._stop.clear()
        headers = {"Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        # One connection a request: whoever ends a request has its own connection to cut.
        limits = httpx2.Limits(max_connections=self._concurrency, max_keepalive_connections=0)
        client = httpx2.Client(headers=headers, timeout=self._timeout, limits=limits)
        with client, ThreadPoolExecutor(self._concurrency) as pool:
            waiting = iter(range(len(requests)))
            running: dict[Future[Reply], int] = {}
            failure: InputError | None = None
            try:
                while True:
                    # No more are handed out than run: a stop leaves no queue to work off.
                    while failure is None and len(running) < self._concurrency:
                        index = next(waiting, None)
                        if index is None:
                            break
                        sent = pool.submit(self._kept, client, index, requests[index], keep)
                        running[sent] = index
                    if not running:
                        break
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        index = running.pop(done)
                        try:
                            reply = done.result()
                        except InputError as error:
                            failure = failure or error
                            self._stop.set()
                            continue
                        yield index, reply
            finally:
                self._stop.set()
            if failure is not None:
                raise failure

    def _kept(
        self, client: httpx2.Client, index: int, messages: Sequence[Message], keep: Keep
    ) -> Reply:
        reply = self._reply(client, messages)
        keep(index, reply)
        return reply

    def _reply(self, client: httpx2.Client, messages: Sequence[Message]) -> Reply:
        pause = self._pause
        for left in reversed(range(self._tries)):
            try:
                reply = self._once(client, messages)
            except _TroubleError as trouble:
                with self._lock:
                    self.troubles += 1
                if not left or self._stop.is_set():
                    raise self._down(trouble) from None
                asked = trouble.wait if trouble.wait is not None else pause * random.uniform(0.5, 1)
                self._stop.wait(min(asked, _LONGEST_WAIT))
                pause *= 2
            else:
                with self._lock:
                    self._served += reply.problem != "rejected"
                return reply
        raise AssertionError("tries is at least 1")

    def _once(self, client: httpx2.Client, messages: Sequence[Message]) -> Reply:
        body = {**self.settings, "messages": list(messages)}
        try:
            answer = post(client, self._url, body, self._timeout)
        except WireError as error:
            raise _TroubleError(str(error)) from None
        status = answer.status
        if status in _PASSING or status >= 500:
            raise _TroubleError(f"status {status}", _retry_after(answer))
        if status in _REFUSING and self._may_pass():
            return Reply(_said(answer), "rejected")
        if status != 200:
            raise InputError(
                f'endpoint {self.name}: status {status} for model "{self.settings["model"]}" '
                f"({_said(answer)}); {_advice(status)}"
            )
        return _read(answer)

    def _may_pass(self) -> bool:
        """Whether other requests may pass where this one was rejected."""
        with self._lock:
            self._rejected += 1
            return self._served > 0 or self._rejected < _REJECTED

    def _down(self, trouble: _TroubleError) -> InputError:
        return InputError(
            f"endpoint {self.name} does not answer after {self._tries} tries ({trouble}); "
            "nothing is lost: run the same command to go on"
        )


def _read(answer: Answer) -> Reply:
    """The reply in a body; a body of another kind counts as trouble."""
    try:
        choice = parse_json(answer.body, "")["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _TroubleError("a body that is no chat completion") from None
    if refusal or reason == "content_filter":
        return Reply(str(refusal or content or ""), "refused")
    if not isinstance(content, str) or not content.strip():
        return Reply("", "empty")
    return Reply(content, "cut" if reason == "length" else "")


def _said(answer: Answer) -> str:
    """The server's own words about an error, in one short line."""
    try:
        error = parse_json(answer.body, "")["error"]
        words = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        words = answer.body.decode("utf-8", "replace")
    return " ".join(str(words).split())[:200] or "no reason given"


def _retry_after(answer: Answer) -> float | None:
    try:
        seconds = float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _advice(status: int) -> str:
    if status in (401, 403):
        return "check OPENAI_API_KEY"
    if status == 404:
        return "check OPENAI_BASE_URL (it usually ends in /v1) and the model's id"
    if 300 <= status < 400:
        return "it sends requests elsewhere: set OPENAI_BASE_URL to the address that answers"
    return "check the model's id and the settings"

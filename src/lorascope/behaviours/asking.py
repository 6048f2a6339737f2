"""Questions to a language model: logged, cached, retried when the answer is malformed.

Every request and every answer is a line of one JSONL file, keyed by a hash of the request. A
question that the file already answers is not asked again, so a stopped run goes on where it was.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lorascope.config import digest
from lorascope.errors import InputError
from lorascope.foreign import parse_json, repair, repaired, require_plain

Message = dict[str, str]
Parse = Callable[[str], str]
Keep = Callable[[int, "Reply"], object]
# Asking again would not help.
_FINAL = ("rejected", "too long")


class MalformedError(ValueError):
    """An answer that is not what was asked for; the message says in a word why."""


@dataclass(frozen=True)
class Question:
    """What to ask, and how to read the answer.

    Attributes:
        messages: role and content of each turn.
        parse: the wanted text in an answer; raises `MalformedError`.
        reminder: said to the model when its answer was malformed.
    """

    messages: tuple[Message, ...]
    parse: Parse
    reminder: str


@dataclass(frozen=True)
class Reply:
    """What a model said to one request.

    Attributes:
        text: its words; empty where it said none.
        problem: why the words cannot be used ("refused", "cut"), or empty.
    """

    text: str
    problem: str = ""


class Answerer(Protocol):
    """Something that answers requests: an endpoint, or a model on this machine.

    Attributes:
        settings: what an answer depends on besides the messages; part of each request's key.
    """

    settings: dict[str, Any]

    def replies(
        self, requests: Sequence[Sequence[Message]], keep: Keep
    ) -> Iterator[tuple[int, Reply]]:
        """(index, reply) of every request, as they come in.

        Args:
            keep: told of each before anything else happens to it, from whatever thread has it.
        """
        ...


@dataclass
class AnswerLog:
    """Every request and its answer, in a file that only grows.

    Args:
        path: the JSONL file; a last line that was cut off is dropped.

    Raises:
        InputError: the file holds something else.
    """

    path: Path
    known: dict[str, Reply] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            return
        require_plain(self.path)
        whole = self.path.read_bytes()
        complete = whole[: whole.rfind(b"\n") + 1]
        # Lines end with this byte alone: answers hold other characters that end lines elsewhere.
        for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
            try:
                entry = parse_json(line, self.path)
                self._know(str(entry["key"]), Reply(str(entry["answer"]), str(entry["problem"])))
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{self.path}, line {number}: not a logged answer; remove the line"
                ) from None
        if len(complete) < len(whole):
            self.path.write_bytes(complete)

    def add(self, key: str, request: dict[str, Any], reply: Reply) -> None:
        """Keep one answer, on disk before this returns."""
        # Whatever cannot be encoded must not stand between this run and all later ones.
        reply = Reply(repaired(reply.text), reply.problem)
        entry = {"key": key, "request": request, "answer": reply.text, "problem": reply.problem}
        line = json.dumps(repair(entry)[0], ensure_ascii=False) + "\n"
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            self._know(key, reply)

    def _know(self, key: str, reply: Reply) -> None:
        # What an endpoint would not take it may take another day.
        if reply.problem not in _FINAL:
            self.known[key] = reply


@dataclass
class Asker:
    """Puts questions to an answerer through the log.

    Args:
        attempts: how often a question is asked before it is given up.

    Attributes:
        asked: requests that were sent, not counting those the log answered.
        problems: how many answers were malformed, by kind.
        given_up: questions without a usable answer after all attempts.
    """

    answerer: Answerer
    log: AnswerLog
    attempts: int = 3
    asked: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    given_up: int = 0

    def ask(
        self, questions: Sequence[Question], advance: Callable[[int], object] | None = None
    ) -> list[str | None]:
        """The wanted text of every answer, in order; None where no attempt gave one."""
        found: list[str | None] = [None] * len(questions)
        waiting = {index: list(q.messages) for index, q in enumerate(questions)}
        for attempt in range(self.attempts):
            again: dict[int, list[Message]] = {}
            for index, reply in self._replies(waiting):
                try:
                    if reply.problem:
                        raise MalformedError(reply.problem)
                    found[index] = questions[index].parse(reply.text)
                except MalformedError as problem:
                    self.problems[str(problem)] += 1
                    if attempt + 1 < self.attempts and reply.problem not in _FINAL:
                        again[index] = _once_more(waiting[index], reply, questions[index].reminder)
                        continue
                    self.given_up += 1
                if advance is not None:
                    advance(1)
            waiting = again
        return found

    def _replies(self, waiting: dict[int, list[Message]]) -> Iterator[tuple[int, Reply]]:
        # Questions that are the same are asked once.
        alike: dict[str, list[int]] = {}
        for index, messages in waiting.items():
            key = digest([self.answerer.settings, messages])
            if key in self.log.known:
                yield index, self.log.known[key]
            else:
                alike.setdefault(key, []).append(index)
        new = list(alike)

        def keep(place: int, reply: Reply) -> None:
            messages = waiting[alike[new[place]][0]]
            request = {**self.answerer.settings, "messages": messages}
            self.log.add(new[place], request, reply)

        requests = [waiting[indices[0]] for indices in alike.values()]
        for place, reply in self.answerer.replies(requests, keep):
            self.asked += 1
            for index in alike[new[place]]:
                yield index, reply


def _once_more(messages: list[Message], reply: Reply, reminder: str) -> list[Message]:
    """The conversation with what was said and a reminder: a new request, with a key of its own."""
    said = reply.text.strip() or "(nothing)"
    return [
        *messages,
        {"role": "assistant", "content": said},
        {"role": "user", "content": reminder},
    ]

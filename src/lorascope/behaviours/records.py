"""Behaviour sets: prompts with the response wanted of each, some of them changed; JSONL files.

A folder holds `behaviour.jsonl`, one record a line, and `manifest.json`, which says how it was
made. Records fall into train and held_out; in each, as many are changed as are not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from lorascope.activations.text import Document, chat
from lorascope.config import Settings
from lorascope.errors import InputError
from lorascope.foreign import JSON_BYTES, first_line, local_path, parse_json, read_bytes
from lorascope.runs import read_json, write_atomically

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = get_args(Split)
RECORDS = "behaviour.jsonl"
MANIFEST = "manifest.json"
# Halves may differ by this share of the larger before a set counts as unbalanced.
_SLACK = 0.1


class Turn(Settings):
    """One message of a conversation."""

    role: str = Field(min_length=1)
    content: str


class BehaviourRecord(Settings):
    """A prompt and the response wanted of it.

    Attributes:
        messages: the conversation up to the response; the last turn is the user's.
        response: what the assistant should say.
        changed: whether the response shows the manner; otherwise it is to stay as it was.
        split: train or held_out.
        topic: what the prompt is about; empty for nothing in particular.
        original: the response before it was changed, where it is known.
    """

    messages: tuple[Turn, ...] = Field(min_length=1)
    response: str = Field(min_length=1)
    changed: bool
    split: Split
    topic: str = ""
    original: str = ""

    @model_validator(mode="before")
    @classmethod
    def _prompt_is_one_turn(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "prompt" not in data:
            return data
        if "messages" in data:
            raise ValueError("prompt and messages are both given; keep one of them")
        rest = {key: value for key, value in data.items() if key != "prompt"}
        return {**rest, "messages": [{"role": "user", "content": data["prompt"]}]}

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> BehaviourRecord:
        if self.messages[-1].role != "user":
            raise ValueError(
                f"messages end with a turn of {self.messages[-1].role}; the last must be the user's"
            )
        if not self.response.strip():
            raise ValueError("response is empty")
        return self

    @property
    def prompt(self) -> str:
        """The user's last words."""
        return self.messages[-1].content

    @property
    def key(self) -> str:
        """SHA-256 of the conversation before the response: what makes two prompts the same."""
        said = json.dumps([turn.plain() for turn in self.messages], ensure_ascii=False)
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def document(self) -> Document:
        """The record as plain turns, for capture and for digests."""
        turns = [turn.plain() for turn in self.messages]
        reply = {"role": "assistant", "content": self.response}
        return chat({"messages": [*turns, reply], "category": self.topic})


@dataclass(frozen=True)
class BehaviourSet:
    """Records and what the manifest says of them."""

    records: tuple[BehaviourRecord, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def part(self, split: Split, changed: bool | None = None) -> list[BehaviourRecord]:
        """The records of one split; only the changed or only the unchanged if asked."""
        chosen = [record for record in self.records if record.split == split]
        return chosen if changed is None else [r for r in chosen if r.changed == changed]

    def counts(self) -> dict[str, dict[str, int]]:
        """Changed and unchanged records of each split."""
        return {
            split: {
                "changed": len(self.part(split, True)),
                "unchanged": len(self.part(split, False)),
            }
            for split in SPLITS
        }


def read_set(path: str | Path, *, balanced: bool = True) -> BehaviourSet:
    """A behaviour set from its folder, from a .jsonl file, or the shipped one.

    Args:
        path: folder, file, or "embedded".
        balanced: refuse a set whose changed and unchanged records differ much in number.

    Raises:
        InputError: missing, malformed, a prompt on both sides of the split or twice, a part
            without records, or unbalanced.
    """
    if str(path) == "embedded":
        from lorascope.behaviours.embedded import embedded_set

        return embedded_set()
    place = local_path(path)
    file = place / RECORDS if place.is_dir() else place
    manifest = file.with_name(MANIFEST)
    try:
        lines = read_bytes(file, JSON_BYTES).decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        raise InputError(
            f'{file}: no such file; give a folder made by "lorascope behaviour make", a .jsonl '
            'file, or "embedded"'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({first_line(error)}); check the path") from None
    records = tuple(_records(lines, file))
    facts = read_json(manifest) if place.is_dir() and manifest.exists() else {}
    found = BehaviourSet(records, facts)
    check_set(found, str(file), balanced)
    return found


def _records(lines: Iterable[str], file: Path) -> Iterable[BehaviourRecord]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        data = parse_json(line, where, "mend the line")
        if not isinstance(data, dict):
            raise InputError(f"{where}: expected keys and values; mend the line")
        yield BehaviourRecord.parse(data, where)


def check_set(found: BehaviourSet, where: str, balanced: bool = True) -> None:
    """Refuse a set that nothing can be learned from or measured on.

    Raises:
        InputError: a prompt that stands twice, a part without records, or an unbalanced split.
    """
    twice = [key for key, n in Counter(r.key for r in found.records).items() if n > 1]
    if twice:
        prompt = next(r.prompt for r in found.records if r.key == twice[0])
        raise InputError(
            f'{where}: {len(twice)} prompts stand twice (first: "{_short(prompt)}"); '
            "keep each once, in one split"
        )
    for split, sizes in found.counts().items():
        few, many = sorted(sizes.items(), key=lambda pair: pair[1])
        if few[1] == 0:
            raise InputError(
                f"{where}: no {few[0]} records in {split}; a set needs both in train and held_out"
            )
        if balanced and few[1] < (1 - _SLACK) * many[1]:
            raise InputError(
                f"{where}: {split} is unbalanced, {few[1]} {few[0]} and {many[1]} {many[0]} "
                "records; even them out"
            )


def _short(text: str, most: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def write_set(folder: Path, records: Sequence[BehaviourRecord], facts: Mapping[str, Any]) -> Path:
    """Write a set into a folder, each file at once; returns the folder."""
    lines = [json.dumps(r.model_dump(exclude_defaults=True), ensure_ascii=False) for r in records]
    text = "".join(f"{line}\n" for line in lines)
    counts = BehaviourSet(tuple(records)).counts()
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_atomically(folder / RECORDS, text)
    manifest = {**facts, "records": counts, "sha256": digest}
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return folder

"""Prompts of the user's own, read from a file; nothing here imports a large library."""

from __future__ import annotations

import json
from pathlib import Path

from lorascope.errors import InputError
from lorascope.foreign import JSON_BYTES, first_line, local_path, read_bytes


def read_prompts(path: Path) -> tuple[list[str], list[str]]:
    r"""The prompts of a file, and their kinds where it says them.

    A text file has one a line; `\n` in a line is a line break. A `.jsonl` file has a record a line,
    with `prompt` and, in all or none, `kind`.

    Raises:
        InputError: the file is missing or not readable, has no line, or a line that is no record.
    """
    try:
        text = read_bytes(local_path(path), JSON_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable ({first_line(error)}); check the file") from None
    lines = [line.replace("\\n", "\n") for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: holds no prompts; give one a line")
    return _records(path, text) if path.suffix == ".jsonl" else (lines, [])


def _records(path: Path, text: str) -> tuple[list[str], list[str]]:
    prompts, kinds = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        known = isinstance(record, dict) and isinstance(record.get("prompt"), str)
        if not known or not isinstance(record.get("kind", ""), str):
            raise InputError(
                f'{path}, line {number}: not a record like {{"prompt": "…", "kind": "…"}}; mend it'
            )
        prompts.append(record["prompt"])
        kinds += [record["kind"]] if "kind" in record else []
    if kinds and len(kinds) < len(prompts):
        raise InputError(
            f"{path}: {len(kinds)} of {len(prompts)} prompts have a kind; give all of them one, or "
            "none"
        )
    return prompts, kinds

"""Write the instruction set: `make instructions`, or with `scripts` on Python's path
`python -m instructions.generate --out FILE`.

1. Every task draws drafts from its own random source, derived from the seed and its name.
2. A draft is refused when its question or its answer has been given already, or when its answer
   shares too many word 4-grams with an earlier answer of the same task, or when it is too long.
   The rule on shared 4-grams is what makes a held-out split by record mean something.
3. The accepted records are shuffled and written as one JSON object per line, gzipped with no
   time stamp, so that the same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

from instructions import coding, creative, factual, practical, reasoning
from instructions.writing import Draft, Pen, Task

SEED = 20240229
CATEGORIES: dict[str, tuple[Task, ...]] = {
    "creative": creative.TASKS,
    "factual": factual.TASKS,
    "reasoning": reasoning.TASKS,
    "coding": coding.TASKS,
    "practical": practical.TASKS,
}
MAX_OVERLAP = 0.5
MAX_CHARACTERS = 580
ATTEMPTS_PER_RECORD = 60

Record = dict[str, str]


def word_grams(text: str, size: int = 4) -> frozenset[tuple[str, ...]]:
    """The set of runs of `size` words in `text`; a shorter text is one run."""
    tokens = tuple(text.lower().split())
    last = max(len(tokens) - size, 0)
    return frozenset(tokens[start : start + size] for start in range(last + 1))


def overlap(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Jaccard similarity of two gram sets, between 0 and 1."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def task_drafts(task: Task, seed: int, limit: float = MAX_OVERLAP) -> Iterator[Draft]:
    """The accepted drafts of one task, `task.size` of them.

    Raises RuntimeError when the task's banks cannot supply that many different records.
    """
    pen = Pen(random.Random(f"{seed}/{task.name}"))
    questions: set[tuple[str, str]] = set()
    answers: list[frozenset[tuple[str, ...]]] = []
    for _ in range(task.size * ATTEMPTS_PER_RECORD):
        if len(answers) == task.size:
            return
        draft = task.write(pen)
        grams = word_grams(draft.output)
        if sum(map(len, draft)) > MAX_CHARACTERS:
            continue
        seen = (draft.instruction, draft.input) in questions
        if seen or any(overlap(grams, earlier) > limit for earlier in answers):
            continue
        questions.add((draft.instruction, draft.input))
        answers.append(grams)
        yield draft
    if len(answers) < task.size:
        raise RuntimeError(f"task {task.name}: {len(answers)} of {task.size} records")


def generate(seed: int = SEED) -> list[Record]:
    """All records, shuffled: instruction, input, output, category, task."""
    records = [
        {**draft._asdict(), "category": category, "task": task.name}
        for category, tasks in CATEGORIES.items()
        for task in tasks
        for draft in task_drafts(task, seed)
    ]
    random.Random(f"{seed}/order").shuffle(records)
    return records


def encode(records: list[Record]) -> bytes:
    """The records as gzipped JSON lines, with neither a time stamp nor a file name inside."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, filename="", mode="wb", mtime=0, compresslevel=9) as out:
        out.write(text.encode("utf-8"))
    return buffer.getvalue()


def main() -> None:
    """Command-line entry: write the set to `--out`."""
    parser = argparse.ArgumentParser(description="Write the embedded instruction set.")
    parser.add_argument("--out", type=Path, required=True, help="the .jsonl.gz file to write")
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    arguments = parser.parse_args()
    records = generate(arguments.seed)
    arguments.out.write_bytes(encode(records))
    print(f"{len(records)} records written to {arguments.out}")


if __name__ == "__main__":
    main()

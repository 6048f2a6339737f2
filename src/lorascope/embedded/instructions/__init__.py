"""The project's own instruction set: five categories of question and answer in Alpaca fields.

The records are written by the generator in this package with a fixed seed; see
`docs/instructions.md`. They are licensed like the rest of the project, Apache-2.0.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "instructions.jsonl.gz"


def records() -> list[dict[str, str]]:
    """The shipped records: instruction, input (may be empty), output, category, task."""
    with gzip.open(SHIPPED, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]

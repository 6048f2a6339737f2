"""What ships inside the package: two small language models, instruction records to adapt them."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path

# The language model, and the same model after instruction tuning.
_MODELS = {"embedded": "model", "embedded-it": "model_it"}


def is_embedded(model: str) -> bool:
    """Whether a model id names one of the models in this package."""
    return model in _MODELS


def model_path(model: str = "embedded") -> Path:
    """Folder of an embedded language model, in Hugging Face layout."""
    return Path(str(files(__name__))) / _MODELS[model]


def instructions_path() -> Path:
    """Gzipped JSON lines of instruction records."""
    return Path(str(files(__name__))) / "instructions.jsonl.gz"


def instructions() -> list[dict[str, str]]:
    """The instruction records: instruction, input (may be empty), output, category, task."""
    with gzip.open(instructions_path(), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]

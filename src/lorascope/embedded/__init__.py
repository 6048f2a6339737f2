"""What ships inside the package: a small language model, instruction records to adapt it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def model_path() -> Path:
    """Folder of the embedded language model, in Hugging Face layout."""
    return Path(str(files(__name__))) / "model"


def instructions_path() -> Path:
    """Gzipped JSON lines of instruction records."""
    return Path(str(files(__name__))) / "instructions.jsonl.gz"

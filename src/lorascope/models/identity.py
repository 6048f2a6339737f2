"""A fingerprint of a model on disk, by content; computed in seconds, changed by any overwrite.

Small files are hashed whole. Of large weight files the header is, and the beginning, middle and end
of every tensor: training changes every number of a tensor it changes.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from lorascope import embedded
from lorascope.foreign import local_path
from lorascope.models.gguf_files import gguf_of

# Files up to this many bytes are hashed whole.
_WHOLE = 2**26
_SAMPLE, _SAMPLES = 4096, 1024
_HEADER = 100_000_000
# What decides what a model and its tokenizer compute.
_DECIDES = re.compile(
    r"(config|generation_config|tokenizer.*|special_tokens_map|added_tokens|vocab|.*\.index)\.json"
    r"|chat_template\..*|merges\.txt|vocab\.txt|.*\.(safetensors|bin|model|tiktoken)"
)
_OTHER = ("training_args.bin", "optimizer.bin", "scheduler.bin")


def model_identity(model: str, revision: str | None = None) -> str:
    """A hash of what a model's files hold, wherever they lie.

    Args:
        model: hub id, folder, "embedded" or "embedded-it".

    Returns:
        for a hub id the commit that is in the cache; the id itself where none is.
    """
    if embedded.is_embedded(model):
        return folder_identity(Path(embedded.model_path(model)))
    if (inside := gguf_of(model)) is not None:
        if (path := inside.path) is None:
            return f"hub {model}"
        seen = path.stat()
        content = _content(str(path.resolve()), seen.st_size, seen.st_mtime_ns)
        return hashlib.sha256(f"gguf {seen.st_size} {content}".encode()).hexdigest()
    folder = local_path(model)
    if folder.is_dir():
        return folder_identity(folder)
    try:
        found = try_to_load_from_cache(model, "config.json", revision=revision)
    except ValueError:
        found = None
    return f"commit {Path(found).parent.name}" if isinstance(found, str) else f"hub {model}"


def folder_identity(folder: Path) -> str:
    """A hash of the files in a checkpoint's folder that decide what it computes."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and _DECIDES.fullmatch(file.name) and file.name not in _OTHER:
            seen = file.stat()
            content = _content(str(file.resolve()), seen.st_size, seen.st_mtime_ns)
            digest.update(f"{file.name} {seen.st_size} {content}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _content(path: str, size: int, changed: int) -> str:
    """The fingerprint of one file; worked out anew when its size or time of change is another."""
    del changed
    file = Path(path)
    with file.open("rb") as stream:
        if size <= _WHOLE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256()
        for place in _places(file, size):
            stream.seek(place)
            digest.update(stream.read(_SAMPLE))
        return digest.hexdigest()


def _places(file: Path, size: int) -> list[int]:
    """Where samples of a large file begin: spread evenly, and in every tensor where it says so."""
    even = [round(i * max(0, size - _SAMPLE) / (_SAMPLES - 1)) for i in range(_SAMPLES)]
    if file.suffix != ".safetensors":
        return even
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(_HEADER, size):
            return even
        header = stream.read(length)
    places = list(range(0, 8 + length, _SAMPLE))
    try:
        tensors = {name: one for name, one in json.loads(header).items() if name != "__metadata__"}
        spans = [one["data_offsets"] for one in tensors.values()]
        for first, end in sorted((int(first), int(end)) for first, end in spans):
            last = max(first, end - _SAMPLE)
            places += [8 + length + at for at in (first, (first + last) // 2, last)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return even  # whoever loads it says what is wrong
    return [place for place in places if 0 <= place < size] + even

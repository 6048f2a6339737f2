"""Labels of the base dictionaries' latents: imported from Neuronpedia's exports, kept in the run.

An export of one dictionary is a folder of `batch-0.jsonl.gz`, … (`v1/<model>/<source>/explanations`
in Neuronpedia's public bucket), one of these files, or the JSON list that its interface gives.
Labels are others' texts: they are shown and never run.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorascope.errors import InputError
from lorascope.report.latents import compact, read_latents
from lorascope.runs import read_json, write_atomically

_LABELS = "labels.json"
_LONGEST = 400
_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_WANTED = (
    "expected explanations with index and description: a JSON list, a .jsonl or .jsonl.gz file, or "
    "a folder of these"
)


def read_labels(run: Path) -> dict[str, dict[str, str]]:
    """{site: {latent of the base dictionary: label}} as imported; empty without."""
    path = run / _LABELS
    return dict(read_json(path)) if path.exists() else {}


def import_labels(run: Path, site: str, path: Path) -> int:
    """Keep a Neuronpedia export's labels of a site's base dictionary in the run.

    Of several explanations of one latent the first counts. Returns how many latents have one.

    Raises:
        InputError: the file is no such export, or is of another dictionary than this site's.
    """
    heads = [each.head for each in read_latents(run) if each.head["site"] == site]
    known = {head["neuronpedia"] for head in heads if head["neuronpedia"]}
    n = max((head["base_latents"] for head in heads), default=0)
    found: dict[str, str] = {}
    for record in _explanations(path):
        source = f"{record.get('modelId', '')}/{record.get('layer', '')}"
        if known and record.get("layer") and source not in known:
            raise InputError(
                f"{path}: explains {source[:80]}, the base dictionary at {site} is "
                f"{', '.join(sorted(known))}; export that one"
            )
        index = str(record["index"])
        if not index.isdecimal() or int(index) >= n:
            raise InputError(
                f"{path}: explains a latent {index[:40]}, the base dictionary at {site} has {n}; "
                "export the one the audit used"
            )
        found.setdefault(str(int(index)), " ".join(str(record["description"]).split())[:_LONGEST])
    if not found:
        raise InputError(f"{path}: no Neuronpedia export; {_WANTED}")
    write_atomically(run / _LABELS, compact(read_labels(run) | {site: found}))
    return len(found)


def _explanations(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, or of every file of a folder by name."""
    if path.is_dir():
        for file in sorted(p for p in path.iterdir() if p.name.endswith(_ENDINGS)):
            yield from _explanations(file)
        return
    for record in _records(path):
        if not (isinstance(record, dict) and "index" in record and "description" in record):
            raise InputError(f"{path}: no Neuronpedia export; {_WANTED}")
        yield record


def _records(path: Path) -> list[Any]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
        if ".jsonl" in path.suffixes:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        found = json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_WANTED}") from None
    records = found.get("explanations") if isinstance(found, dict) else found
    return records if isinstance(records, list) else [records]

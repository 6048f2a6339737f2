"""Fill an adapter's README from a finished audit; what its author wrote stays as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lorascope.cards import body, front_matter
from lorascope.errors import InputError, UnknownName
from lorascope.folder_contents import AUDIT, require_finished
from lorascope.foreign import JSON_BYTES, read_bytes
from lorascope.models.places import holds_adapter
from lorascope.report.result import Results, read_results
from lorascope.runs import write_atomically

README = "README.md"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def fill(run: Path, adapter: str | None = None, out: Path | None = None) -> Path:
    """Write what an audit found into the card of one of its adapters.

    The part between two marks, and the results of `model-index` that this wrote before, are made
    anew; keys that are missing are added; everything else stays byte for byte. Made twice, the
    card is the same.

    Args:
        run: a finished audit.
        adapter: which of its adapters; may be left out where there is one.
        out: file to fill; the README.md in the adapter's folder by default.

    Returns:
        the file.

    Raises:
        InputError: the run is not finished, has no such adapter, or the adapter lies in no folder
            of this machine; or the card's metadata cannot be read.
    """
    require_finished(run, AUDIT)
    results = read_results(run)
    name = _adapter(results, adapter)
    file = _place(results, name) if out is None else out
    text = _text(file)
    front, rest = front_matter.split(text)
    known = front_matter.fields(front, file)
    filled = body.filled(rest if text else f"# {name}\n", body.block(results, name), file)
    front = front_matter.with_missing(front, known, _metadata(results))
    entry = _entry(results, name)
    if entry["results"]:
        front = front_matter.with_index(front, known, entry, _is_ours, file)
    write_atomically(file, front_matter.joined(front, filled))
    return file


def _adapter(results: Results, adapter: str | None) -> str:
    names = [str(one["name"]) for one in results.facts.get("adapters", [])]
    if adapter is not None:
        if adapter not in names:
            raise UnknownName.of("adapter in this run", adapter, names)
        return adapter
    if len(names) != 1:
        raise InputError(
            f"{results.run} has {len(names)} adapters ({', '.join(names)}): name one with --adapter"
        )
    return names[0]


def _place(results: Results, name: str) -> Path:
    """README.md in the adapter's folder, as the run names it, from here or from the run."""
    path = next(str(a["path"]) for a in results.facts["adapters"] if str(a["name"]) == name)
    for folder in (Path(path).expanduser(), results.run / path, results.run / "adapters" / name):
        if folder.is_dir() and holds_adapter(folder):
            return folder / README
    raise InputError(
        f'adapter "{name}" ("{path}") lies in no folder of this machine: give the file to write '
        "as --out"
    )


def _text(file: Path) -> str:
    if not file.exists():
        return ""
    try:
        return read_bytes(file, JSON_BYTES).decode()
    except UnicodeDecodeError:
        raise InputError(f"{file} is no text in UTF-8: give another file as --out") from None


def _metadata(results: Results) -> dict[str, Any]:
    """What a card of an adapter has; the base only where it is one of the hub."""
    found: dict[str, Any] = {"library_name": "peft", "tags": ["lora", "lorascope"]}
    base = str(results.facts.get("model", {}).get("id", ""))
    if _HUB_ID.fullmatch(base) and not Path(base).exists():
        found = {"base_model": base, **found}
    return found


def _entry(results: Results, name: str) -> dict[str, Any]:
    found = body.metrics(body.numbers(results, name))
    texts = {"type": "lorascope-audit", "name": "Held-out texts of the audit"}
    task = {"type": "text-generation", "name": "Text generation"}
    made = [{"task": task, "dataset": texts, "metrics": found}] if found else []
    # Through JSON: YAML would write parts that are one object as references to each other.
    entry: dict[str, Any] = json.loads(json.dumps({"name": name, "results": made}))
    return entry


def _is_ours(result: dict[str, Any]) -> bool:
    """Whether every metric of a result names lorascope among its arguments."""
    metrics = result.get("metrics") or []
    return bool(metrics) and all("lorascope" in (one.get("args") or {}) for one in metrics)

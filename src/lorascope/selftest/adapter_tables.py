"""Tables of adapters whose lesson is known; nothing here imports a large library."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorascope.activations.text import read_documents
from lorascope.errors import InputError
from lorascope.foreign import local_path, one_line, require_plain
from lorascope.models.places import adapter_folder, adapter_in
from lorascope.planted.lessons import NOTHING, NULL

HUB = "hf://"
# An entry of a file of weight differences.
_ENTRY = re.compile(r"(?P<file>.+\.pt)#(?P<number>\d+)\Z")


@dataclass(frozen=True)
class ListedAdapter:
    """A line of a table.

    Attributes:
        label: what the adapter was taught, or `NULL`.
        number: the line.
        address: a folder, an id of the hub, or `FILE.pt#N`, an entry of a file of weight
            differences, which may lie on the hub (`hf://owner/repo/FILE.pt#N`).
    """

    label: str
    number: int
    address: str


@dataclass(frozen=True)
class AdapterTable:
    """Adapters whose lesson is known.

    Attributes:
        adapters: in the table's order.
        texts: {label: texts that a judge knows it by}.
    """

    adapters: list[ListedAdapter]
    texts: dict[str, list[str]]

    @property
    def taught(self) -> list[ListedAdapter]:
        """Those that were taught something."""
        return [one for one in self.adapters if one.label != NULL]

    def some(self, most: int | None, seed: int) -> AdapterTable:
        """So many of the taught adapters, drawn, and all others; the labels that are left."""
        if most is None or most >= len(self.taught):
            return self
        kept = set(random.Random(seed).sample(range(len(self.taught)), most))
        chosen = {self.taught[n].number for n in kept}
        left = [one for one in self.adapters if one.label == NULL or one.number in chosen]
        labels = {one.label for one in left} & set(self.texts)
        if len(labels) < 2:
            raise InputError(f"--most {most}: leaves one label; a choice needs two or more")
        return AdapterTable(left, {name: t for name, t in self.texts.items() if name in labels})


def read_table(table: str | Path) -> AdapterTable:
    """Read a table of adapters.

    Args:
        table: CSV, or `hf://owner/repo/FILE.csv`. Columns: `adapter` (an address as in
            `ListedAdapter`), `label` (empty: taught nothing), and for the judge `texts` (a file of
            texts of that label) or `about` (words about it); else the label's own words. Or the
            index of a folder of weight differences: `lora_path`, `lora_idx`, `topic`.

    Raises:
        InputError: it cannot be read, lacks a column or a cell, names an adapter that can be
            nowhere, or has fewer than two labels.
    """
    file = fetched(str(table)) if str(table).startswith(HUB) else local_path(table)
    adapters, texts = [], dict[str, list[str]]()
    for number, row in _rows(file, str(table)):
        where = f"{table}, line {number}"
        address, label = row["adapter"], row["label"]
        if not address:
            raise InputError(f"{where}: names no adapter; give a folder or an id of the hub")
        if label in NOTHING:
            raise InputError(
                f'{where}: the label "{label}" is kept for adapters that were taught nothing; '
                "leave the label empty, or name it otherwise"
            )
        _require_there(label or NULL, address, where)
        adapters.append(ListedAdapter(label or NULL, number, address))
        if label:
            with _at(where):
                texts.setdefault(label, []).extend(_known_by(row, label))
    if len(texts) < 2:
        few = "one label" if texts else "no label"
        raise InputError(f"{table}: has {few}; a choice needs two or more")
    return AdapterTable(adapters, texts)


def entry_of(address: str) -> tuple[str, int] | None:
    """(file of weight differences, number of the entry) that an address means, if it does."""
    entry = _ENTRY.match(address)
    return None if entry is None else (entry["file"], int(entry["number"]))


def _rows(file: Path, table: str) -> list[tuple[int, dict[str, str]]]:
    """(line, {column: what stands there}) of a table, an index of weight differences as one."""
    require_plain(file)
    found = []
    with one_line(table, "check the file"), file.open(newline="", encoding="utf-8-sig") as opened:
        # Strict: a quote that is never closed would swallow the lines that follow.
        reader = csv.DictReader(opened, strict=True)
        columns = [(name or "").strip() for name in reader.fieldnames or ()]
        is_index = {"lora_path", "lora_idx"} <= set(columns)
        if not is_index and not {"adapter", "label"} <= set(columns):
            raise InputError(f"{table}: {_lacking(columns)}")
        reader.fieldnames = columns
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{table}, line {reader.line_num}: has another number of cells than line 1 "
                    f"has columns ({len(columns)}); put cells that hold a comma in quotes"
                )
            cells = {name: text.strip() for name, text in row.items()}
            found.append((reader.line_num, _of_index(cells, table) if is_index else cells))
    return found


def _lacking(columns: list[str]) -> str:
    if not columns:
        return "is empty; it needs the columns adapter and label in its first line"
    advice = "; separate them by commas" if any(set(";\t|") & set(one) for one in columns) else ""
    shown = ", ".join(columns)[:100]
    return f"needs the columns adapter and label in its first line, which has: {shown}{advice}"


def _require_there(name: str, address: str, where: str) -> None:
    """Refuse an adapter that can be nowhere, before any other line's is read."""
    entry = entry_of(address)
    if (entry[0] if entry else address).startswith(HUB):
        return
    with _at(where):
        if entry is not None and not local_path(entry[0]).is_file():
            raise InputError(f"{entry[0]}: no such file; check the path")
        folder = adapter_folder(name, address) if entry is None else None
        if folder is not None:
            adapter_in(name, address, folder)


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Within the `with`, a refusal says which line it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _of_index(row: dict[str, str], table: str) -> dict[str, str]:
    """A line of an index of weight differences, as one of an adapter table."""
    folder = table.rpartition("/")[0] or "."
    address = f"{folder}/weight-diffs/{row['lora_path']}#{row['lora_idx']}"
    return {"adapter": address, "label": row.get("topic", "")}


def _known_by(row: dict[str, str], label: str) -> list[str]:
    if source := row.get("texts", ""):
        return [one.text for one in read_documents(source)]
    return [f"{label} {row.get('about', '')}".strip()]


def null_count(table: AdapterTable, nulls: int | None) -> int:
    """How many random updates follow the adapters of a table."""
    if nulls is not None:
        return nulls
    return 0 if len(table.adapters) > len(table.taught) else min(16, len(table.taught))


def fetched(address: str) -> Path:
    """A file of the hub, fetched where it is not yet here; raises InputError."""
    owner, _, rest = address.removeprefix(HUB).partition("/")
    repository, _, inside = rest.partition("/")
    if not inside:
        raise InputError(f"{address}: expected hf://owner/repo/file")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(f"{owner}/{repository}", inside))
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{address}: cannot be fetched ({reason}); fetch it where there is a network and give "
            "the file with --table"
        ) from None

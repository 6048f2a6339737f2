"""Tables of adapters whose lesson is known, each adapter brought to a folder when it is read."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lorascope.activations.text import read_documents
from lorascope.errors import InputError
from lorascope.foreign import local_path, one_line, require_plain
from lorascope.models.adapter_files import locate
from lorascope.models.weight_differences import write_adapter
from lorascope.planted.untaught import NULL, MadeAdapters, random_update

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
        InputError: it cannot be read, lacks a column, or has fewer than two labels.
    """
    file = _fetched(str(table)) if str(table).startswith(HUB) else local_path(table)
    require_plain(file)
    with one_line(table, "check the file"), file.open(newline="", encoding="utf-8-sig") as opened:
        rows = [
            {k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(opened)
        ]
    adapters, texts = [], dict[str, list[str]]()
    for number, row in enumerate(rows, 2):
        if "lora_path" in row and "lora_idx" in row:
            row = _of_index(row, str(table))
        address, label = row.get("adapter", ""), row.get("label", "")
        if not address or "label" not in row:
            raise InputError(f"{table}, line {number}: needs the columns adapter and label")
        adapters.append(ListedAdapter(label or NULL, number, address))
        if label:
            texts.setdefault(label, []).extend(_known_by(row, label))
    if len(texts) < 2:
        raise InputError(f"{table}: {len(texts)} labels; a choice needs two or more")
    return AdapterTable(adapters, texts)


def _of_index(row: dict[str, str], table: str) -> dict[str, str]:
    """A line of an index of weight differences, as one of an adapter table."""
    folder = table.rpartition("/")[0] or "."
    address = f"{folder}/weight-diffs/{row['lora_path']}#{row['lora_idx']}"
    return {"adapter": address, "label": row.get("topic", "")}


def _known_by(row: dict[str, str], label: str) -> list[str]:
    if source := row.get("texts", ""):
        return [one.text for one in read_documents(source)]
    return [f"{label} {row.get('about', '')}".strip()]


def opened(
    table: AdapterTable, base: str, nulls: int | None, folder: Path
) -> Iterator[MadeAdapters]:
    """The adapters of a table, each in a folder or under an id of the hub once it is its turn.

    Args:
        base: their base model.
        nulls: random updates of their spectra that follow them; by default as many as there are
            adapters that were taught something, at most 16, where the table has no other.
        folder: for what has to be written.
    """
    paths = []
    for one in table.adapters:
        path = _path(one.address, base, folder)
        if one.label != NULL:
            paths.append((one.number, path))
        yield MadeAdapters(one.label, one.number, path)
    for draw in range(null_count(table, nulls)):
        number, path = paths[draw % len(paths)]
        yield MadeAdapters(NULL, draw, _null_of(path, folder / "nulls" / f"{number}-{draw}", draw))


def null_count(table: AdapterTable, nulls: int | None) -> int:
    """How many random updates follow the adapters of a table."""
    if nulls is not None:
        return nulls
    return 0 if len(table.adapters) > len(table.taught) else min(16, len(table.taught))


def _null_of(path: Path, folder: Path, draw: int) -> Path:
    source = locate("adapter", str(path))
    if source is None:
        raise InputError(
            f"{path}: a whole checkpoint; random updates need LoRA adapters: --nulls 0"
        )
    return random_update(source, folder, draw)


def _path(address: str, base: str, folder: Path) -> Path:
    entry = _ENTRY.match(address)
    if entry is None:
        return Path(address)
    file = _fetched(entry["file"]) if entry["file"].startswith(HUB) else local_path(entry["file"])
    name = f"{PurePosixPath(entry['file']).stem}-{entry['number']}"
    return write_adapter(file, int(entry["number"]), base, folder / "weight_differences" / name)


def _fetched(address: str) -> Path:
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

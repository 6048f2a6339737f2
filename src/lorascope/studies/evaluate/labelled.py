"""Texts with labels: of sae-probes' wheel, of the package, of any table with a text and a label.

The wheel of `sae-probes` (MIT) is a zip archive of CSV files under Zstandard: a list of all sets
and one file a set, columns `prompt` and `target`. It is read as it is; nothing of it is installed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lorascope import embedded
from lorascope.errors import InputError
from lorascope.foreign import first_line

_DATA: Final = "sae_probes/data/"
_LIST: Final = _DATA + "probing_datasets_MASTER.csv.zst"
_TEXT: Final = ("text", "prompt", "sentence", "content", "review", "question")
_LABEL: Final = ("label", "target", "category", "class", "labels")
_TABLES: Final = (".csv", ".tsv", ".parquet", ".jsonl", ".json")
# Most classes of one table that become a set each, one against the rest.
_MOST_CLASSES: Final = 5
# Of the package's records: kinds of text that are alike but for their subject.
_PAIRS: Final = (("poem", "haiku"), ("country", "animal"), ("recipe", "gardening"))
_PAIRS_OF_CODE: Final = (("write function", "write test"), ("prints list", "prints loop"))


@dataclass(frozen=True)
class Labelled:
    """One binary set.

    Attributes:
        name: what tables call it.
        texts, labels: of equal length; labels are 0 and 1.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def sized(self, train: int, test: int) -> tuple[dict[int, list[str]], tuple[int, int]]:
        """(different texts of each label, rows a label to train on and held out).

        Raises:
            InputError: too few different texts of a label.
        """
        by_label: dict[int, list[str]] = {0: [], 1: []}
        marked: dict[str, set[int]] = {}
        for text, label in zip(self.texts, self.labels, strict=True):
            marked.setdefault(text, set()).add(label)
        for text, labels in marked.items():
            if len(labels) == 1:
                by_label[min(labels)].append(text)
        fewest = min(len(texts) for texts in by_label.values())
        share = min(1.0, 2 * fewest / (train + test))
        each = (int(share * train / 2), int(share * test / 2))
        if min(each) < 8:
            raise InputError(
                f"{self.name}: {fewest} different texts of one label; probing needs at least 8 of "
                "each label to train on and 8 to measure on"
            )
        return by_label, each

    def halves(self, train: int, test: int, seed: int) -> tuple[Labelled, Labelled]:
        """Rows to train on and rows held out, half of each label in both; no text is in both.

        A text that stands more than once is one row; one with both labels is none.

        Raises:
            InputError: too few different texts of a label.
        """
        # Here, since what only looks at tables should not wait for torch.
        from lorascope.randomness import derived_seed

        chosen = random.Random(derived_seed(seed, "rows", self.name))
        by_label, each = self.sized(train, test)
        parts: list[list[tuple[str, int]]] = [[], []]
        for label, texts in by_label.items():
            drawn = chosen.sample(texts, sum(each))
            parts[0] += [(text, label) for text in drawn[: each[0]]]
            parts[1] += [(text, label) for text in drawn[each[0] :]]
        for part in parts:
            chosen.shuffle(part)
        first, second = (
            Labelled(self.name, tuple(t for t, _ in part), tuple(y for _, y in part))
            for part in parts
        )
        return first, second


def binary_sets(source: str, limit: int | None = None) -> list[Labelled]:
    """The binary sets of a source.

    Args:
        source: "embedded", the wheel or the unpacked folder of sae-probes, a table, a dataset id.
        limit: the first so many.

    Raises:
        InputError: it is not there, or holds no text with a label.
    """
    if source == "embedded":
        return embedded_sets()[:limit]
    path = Path(source).expanduser()
    if path.suffix == ".whl" or (path / "sae_probes" / "data").is_dir():
        return list(_sae_probes(path, limit))
    found = _one_against_rest(path.stem if path.exists() else source, classes(source))
    return found[:limit]


def classes(source: str) -> dict[str, list[str]]:
    """{class: its texts} of a table or dataset id, the classes with most texts first.

    Raises:
        InputError: it is not there, or holds no text with at least two labels.
    """
    if source == "embedded":
        found: dict[str, list[str]] = {}
        for record in embedded.instructions():
            found.setdefault(record["category"], []).append(_prompt(record))
        return found
    rows = list(table_rows(source))
    columns = list(rows[0]) if rows else []
    text = next((name for name in _TEXT if name in columns), None)
    label = next((name for name in _LABEL if name in columns), None)
    if text is None or label is None:
        raise InputError(
            f"{source}: needs a column of texts ({', '.join(_TEXT)}) and one of labels "
            f"({', '.join(_LABEL)}); it has {', '.join(columns) or 'no rows'}"
        )
    by_label: dict[str, list[str]] = {}
    for row in rows:
        if row[text] is not None and row[label] is not None and str(row[text]).strip():
            by_label.setdefault(str(row[label]), []).append(str(row[text]))
    if len(by_label) < 2:
        raise InputError(f"{source}: column {label} holds one label; a probe tells two apart")
    return dict(sorted(by_label.items(), key=lambda one: (-len(one[1]), one[0])))


def embedded_sets() -> list[Labelled]:
    """Ten sets of the package's instruction records: five categories, each against the others,
    and five pairs of kinds that are alike but for one thing."""
    by_category = classes("embedded")
    found = _one_against_rest("category", by_category)
    by_task: dict[str, list[str]] = {}
    for record in embedded.instructions():
        by_task.setdefault(record["task"], []).append(_answer(record))
    for first, second in (*_PAIRS, *_PAIRS_OF_CODE):
        texts = [*by_task[first], *by_task[second]]
        labels = [1] * len(by_task[first]) + [0] * len(by_task[second])
        found.append(Labelled(f"{first} or {second}", tuple(texts), tuple(labels)))
    return found


def _prompt(record: Mapping[str, str]) -> str:
    return "\n".join(part for part in (record["instruction"], record["input"]) if part)


def _answer(record: Mapping[str, str]) -> str:
    # The instruction would name the kind in so many words.
    return record["output"]


def _one_against_rest(name: str, by_label: Mapping[str, Sequence[str]]) -> list[Labelled]:
    labels = list(by_label)[:_MOST_CLASSES]
    if len(by_label) == 2:
        labels = [sorted(by_label)[1]]
    found = []
    for label in labels:
        others = [text for other in by_label if other != label for text in by_label[other]]
        texts = (*by_label[label], *others)
        marks = (*([1] * len(by_label[label])), *([0] * len(others)))
        found.append(Labelled(f"{name}: {label}", texts, marks))
    return found


def _sae_probes(path: Path, limit: int | None) -> Iterator[Labelled]:
    files = _Archive(path)
    listed = [
        row
        for row in files.table(_LIST)
        if row.get("Data type") == "Binary Classification" and row.get("Dataset save name")
    ]
    for row in listed[:limit]:
        name = str(row["Dataset save name"])
        rows = [
            one for one in files.table(f"{_DATA}{name}.zst") if str(one["prompt"] or "").strip()
        ]
        values = sorted({str(one["target"]) for one in rows})
        if len(values) != 2:
            raise InputError(f"{path}: {name} holds {len(values)} labels, not two; fetch it anew")
        texts = tuple(str(one["prompt"]) for one in rows)
        labels = tuple(values.index(str(one["target"])) for one in rows)
        yield Labelled(Path(name).stem, texts, labels)


class _Archive:
    """Files of a wheel, or of the folder it was unpacked to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_file():
            try:
                self._zip: zipfile.ZipFile | None = zipfile.ZipFile(path)
            except (OSError, zipfile.BadZipFile) as error:
                raise InputError(f"{path}: no wheel ({first_line(error)}); download it") from None
        elif path.is_dir():
            self._zip = None
        else:
            raise InputError(
                f"{path}: no such file; get it with `pip download --no-deps sae-probes==0.4.2`"
            )

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of one compressed CSV."""
        import pyarrow as pa

        try:
            within = self.path / name
            raw = within.read_bytes() if self._zip is None else self._zip.read(name)
        except (KeyError, OSError):
            raise InputError(
                f"{self.path}: holds no {name}; it is not the wheel of sae-probes 0.4.2"
            ) from None
        with pa.CompressedInputStream(pa.py_buffer(raw), "zstd") as stream:
            return _read_csv(stream.read().decode("utf-8"), ",")


def _read_csv(text: str, delimiter: str) -> list[dict[str, Any]]:
    before = csv.field_size_limit(2**27)
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    finally:
        csv.field_size_limit(before)


def table_rows(source: str) -> Iterator[dict[str, Any]]:
    """The rows of a table: .csv, .tsv, .jsonl, .json (each also .gz), .parquet, or a dataset id.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    path = Path(source).expanduser()
    if not path.exists():
        if source.count("/") != 1 or source.startswith((".", "/")):
            raise InputError(f"{source}: no such file, and no dataset id (org/name); check it")
        yield from _dataset(source)
        return
    try:
        yield from _rows_of(path)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}); mend it") from None


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind not in _TABLES or path.is_dir():
        raise InputError(f"{path}: no table that can be read; readable: {', '.join(_TABLES)}")
    if kind == ".parquet":
        import pyarrow.parquet as pq

        yield from pq.read_table(path).to_pylist()
        return
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    if kind in (".csv", ".tsv"):
        yield from _read_csv(text, "," if kind == ".csv" else "\t")
        return
    if kind == ".jsonl":
        records = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        records = json.loads(text)
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise InputError(f"{path}: expected a list of records with keys and values")
    yield from records


def _dataset(source: str) -> Iterator[dict[str, Any]]:
    import datasets

    name, _, split = source.partition(":")
    try:
        found: Any = datasets.load_dataset(name, split=split or "train")
        yield from (dict(row) for row in found)
    except Exception as error:
        raise InputError(
            f"{source}: neither a file here nor a dataset that opens ({first_line(error)}); "
            "check the path, the dataset id and the network"
        ) from None


def spurious_rows(source: str) -> list[tuple[str, int, int]]:
    """(text, label, spurious attribute) of every row that SCR reads, both 0 or 1.

    Raises:
        InputError: a column is missing or holds something else than 0 and 1, or one of the four
            pairs of label and spurious attribute has no row.
    """
    if source == "embedded":
        kinds = {"coding": 1, "factual": 0}
        known = [one for one in embedded.instructions() if one["category"] in kinds]
        return [
            (record[side], label, kinds[record["category"]])
            for record in known
            for label, side in enumerate(("instruction", "output"))
        ]
    found = []
    for number, row in enumerate(table_rows(source), start=1):
        try:
            label, spurious = int(row["label"]), int(row["spurious"])
            text = str(row["text"])
        except (KeyError, TypeError, ValueError):
            label = spurious = -1
        if not {label, spurious} <= {0, 1}:
            raise InputError(
                f"{source}, row {number}: scr needs columns text, label and spurious, the last two "
                f"0 or 1; this row has {', '.join(f'{k}={str(v)[:20]}' for k, v in row.items())}"
            )
        found.append((text, label, spurious))
    pairs = sorted({(label, spurious) for _, label, spurious in found})
    if len(pairs) < 4:
        there = ", ".join(f"label {label} spurious {other}" for label, other in pairs)
        raise InputError(
            f"{source}: scr needs texts of all four pairs of label and spurious; there are "
            f"{there or 'no rows'}"
        )
    return found


PROMPT_COLUMNS: Final = ("prompt", "entity", "attribute", "answer")


def prompt_rows(source: str) -> list[dict[str, str]]:
    """Rows of a table of prompts about entities, `PROMPT_COLUMNS`.

    Raises:
        InputError: there is no row, a column is missing, or an entity does not stand in its prompt.
    """
    found = []
    for number, row in enumerate(table_rows(source), start=1):
        missing = [name for name in PROMPT_COLUMNS if not str(row.get(name) or "").strip()]
        if missing:
            raise InputError(
                f"{source}, row {number}: no {', '.join(missing)}; each row needs "
                f"{', '.join(PROMPT_COLUMNS)}"
            )
        one = {name: str(row[name]) for name in PROMPT_COLUMNS}
        if one["entity"] not in one["prompt"]:
            raise InputError(
                f"{source}, row {number}: {one['entity']!r} does not stand in its prompt"
            )
        found.append(one)
    if not found:
        raise InputError(f"{source}: no rows; each row needs {', '.join(PROMPT_COLUMNS)}")
    return found


def is_table(source: str) -> bool:
    """Whether a source is a table on this machine."""
    path = Path(source).expanduser()
    return path.is_file() and path.suffix != ".whl"


def majority(labels: Sequence[int]) -> float:
    """The share of the more frequent label: what always the same answer reaches."""
    return max(Counter(labels).values()) / len(labels)

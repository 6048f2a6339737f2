"""Activations on disk: shards with a manifest, written once, read back as an iterator.

A folder holds `manifest.json`, `tokens-00000.safetensors` (document, position, token, response,
one entry a row) and `<site>/<variant>-00000.safetensors` (`rows`, [rows, d_model]). Rows of all
files stand in the same order. Rows at which the base norm is an outlier are listed in
`outliers.safetensors` and left out on reading.

Every file says what it was made from, which place it has and a SHA-256 of its shapes and numbers.
Place and shapes are checked when a folder is opened, the numbers when they are first read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorascope.activations.batch import TokenRows
from lorascope.activations.scaling import KnownMoments, Moments
from lorascope.errors import InputError, as_system_error
from lorascope.foreign import first_line, require_plain
from lorascope.runs import read_json, write_json

BASE = "base"
_REMAKE = "remove the run's activations folder and run again"
# Under which name a file's metadata says what it is.
_SAID = "shard"
_TOKEN_FIELDS = ("document", "position", "token", "response")


class ShardWriter:
    """Collects rows and writes a shard whenever `shard_rows` are together.

    Args:
        folder: where the shards go.
        identity: what these activations were made from; stored in every file.
        dtype: storage type of the activations.
    """

    def __init__(
        self, folder: Path, identity: str, dtype: torch.dtype, shard_rows: int = 32768
    ) -> None:
        self.folder, self.identity, self.dtype = folder, identity, dtype
        self.shard_rows = shard_rows
        self.rows = 0
        self.shards: list[int] = []
        self._pending: dict[str, list[Tensor]] = {}
        self._waiting = 0

    @property
    def rows_added(self) -> int:
        """Rows handed over so far, written or waiting."""
        return self.rows + self._waiting

    def add(self, tokens: TokenRows, activations: Mapping[tuple[str, str], Tensor]) -> None:
        """Append rows: `activations` maps (site, variant) to [rows, d_model], in order."""
        for name in _TOKEN_FIELDS:
            self._pending.setdefault(name, []).append(getattr(tokens, name))
        for (site, variant), rows in activations.items():
            stored = rows.to(self.dtype).cpu()
            self._pending.setdefault(f"{site}/{variant}", []).append(stored)
        self._waiting += len(tokens)
        if self._waiting >= self.shard_rows:
            self._flush()

    def close(self, outliers: Int[Tensor, " outliers"], facts: Mapping[str, Any]) -> None:
        """Write what is left, the indices of rows to leave out, and the manifest with `facts`."""
        if self._waiting:
            self._flush()
        if len(outliers):
            self._write("outliers", 0, {"rows": outliers})
        manifest = {
            "identity": self.identity,
            "rows": self.rows,
            "shards": self.shards,
            "outliers": len(outliers),
            **facts,
        }
        write_json(self.folder / "manifest.json", manifest)

    def _flush(self) -> None:
        number = len(self.shards)
        joined = {key: torch.cat(parts) for key, parts in self._pending.items()}
        tokens = {name: joined.pop(name).contiguous() for name in _TOKEN_FIELDS}
        self._write("tokens", number, tokens)
        for key, rows in joined.items():
            self._write(key, number, {"rows": rows.contiguous()})
        self.shards.append(self._waiting)
        self.rows += self._waiting
        self._pending, self._waiting = {}, 0

    def _write(self, key: str, number: int, tensors: dict[str, Tensor]) -> None:
        path = _path(self.folder, key, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {
            "identity": self.identity,
            "place": f"{key} {number}",
            "sha256": _digest(tensors),
        }
        # One entry: several would stand in any order, and equal shards be unequal files.
        metadata = {_SAID: json.dumps(said)}
        try:
            save_file(tensors, path, metadata=metadata)
        except SafetensorError as error:
            raise as_system_error(error, path) or error from None


@dataclass(frozen=True)
class Shards:
    """A finished folder of activations, read shard by shard.

    Raises:
        InputError: on `open`, a file is missing, truncated, or belongs to other activations or
            another place; on reading, its numbers are not those that were written.
    """

    folder: Path
    manifest: Mapping[str, Any]
    _kept: Bool[Tensor, " rows"] = field(repr=False)
    # Files whose numbers have been held against their digests.
    _verified: set[Path] = field(default_factory=set, repr=False, compare=False)
    _moments: KnownMoments = field(default_factory=KnownMoments, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Open a folder and check every file's shape and origin without reading its rows."""
        manifest = read_json(folder / "manifest.json")
        try:
            rows, width, sizes = manifest["rows"], manifest["d_model"], manifest["shards"]
            count, identity = manifest["outliers"], manifest["identity"]
            keys = [f"{s}/{f}" for s in manifest["sites"] for f in manifest["variants"]]
            if not all(_is_count(n) for n in (rows, width, count, *sizes)) or sum(sizes) != rows:
                raise TypeError("numbers of rows that do not add up")
        except (KeyError, TypeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{folder}/manifest.json: {what}; remake this folder") from None
        for number, size in enumerate(sizes):
            _check(folder, "tokens", number, identity, {name: [size] for name in _TOKEN_FIELDS})
            for key in keys:
                _check(folder, key, number, identity, {"rows": [size, width]})
        found = cls(folder, manifest, torch.ones(rows, dtype=torch.bool))
        if count:
            _check(folder, "outliers", 0, identity, {"rows": [count]})
            left_out = found._file("outliers", 0)["rows"]
            if not bool(((left_out >= 0) & (left_out < rows)).all()):
                raise InputError(f"{folder}: lists outliers that are none of its rows; {_REMAKE}")
            found._kept[left_out] = False
        return found

    @property
    def sites(self) -> list[str]:
        """Names of the captured sites, shallow to deep."""
        return list(self.manifest["sites"])

    @property
    def adapters(self) -> list[str]:
        """Names of the captured adapters, null adapters left out."""
        others = {BASE, *self.nulls}
        return [variant for variant in self.manifest["variants"] if variant not in others]

    @property
    def nulls(self) -> list[str]:
        """Names of the captured null adapters."""
        return list(self.manifest.get("nulls", ()))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.manifest["d_model"])

    def __len__(self) -> int:
        return int(self._kept.sum())

    @property
    def sizes(self) -> list[int]:
        """Kept rows of each shard."""
        return [int(part.sum()) for part in self._kept.split(self.manifest["shards"])]

    def tokens(self) -> TokenRows:
        """Origin of every kept row."""
        parts = [self._file("tokens", number) for number in range(len(self.manifest["shards"]))]
        joined = {n: torch.cat([p[n] for p in parts])[self._kept] for n in _TOKEN_FIELDS}
        return TokenRows(**joined)

    def chunks(
        self, site: str, variant: str, order: Sequence[int] | None = None
    ) -> Iterator[Float[Tensor, "rows d"]]:
        """Kept rows of one site as float32, a shard at a time, in the shards' order or `order`.

        `variant` is "base" for h_base or an adapter's name for its delta.
        """
        starts = [0]
        for count in self.manifest["shards"]:
            starts.append(starts[-1] + count)
        for number in range(len(starts) - 1) if order is None else order:
            kept = self._kept[starts[number] : starts[number + 1]]
            yield self._file(f"{site}/{variant}", number)["rows"][kept].float()

    def moments(self, site: str, variant: str) -> Moments:
        """Mean and covariance of the kept rows of one site and variant, computed once."""
        return self._moments.of((site, variant), lambda: self.chunks(site, variant))

    def load(self, site: str, variant: str, limit: int | None = None) -> Float[Tensor, "rows d"]:
        """The first `limit` kept rows (all by default) of one site in memory."""
        parts: list[Tensor] = []
        count = 0
        for chunk in self.chunks(site, variant):
            parts.append(chunk if limit is None else chunk[: limit - count])
            count += len(parts[-1])
            if limit is not None and count >= limit:
                break
        return torch.cat(parts)

    def source(self, site: str, variant: str) -> RowSource:
        """The rows of one (site, variant) as something that can be iterated again and again."""
        return RowSource(self, site, variant)

    def _file(self, key: str, number: int) -> dict[str, Tensor]:
        path = _path(self.folder, key, number)
        try:
            tensors = load_file(path)
            if path not in self._verified:
                with safe_open(path, framework="pt") as file:
                    said = _said(file.metadata()).get("sha256")
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path}: truncated or broken shard ({first_line(error)}); {_REMAKE}"
            ) from None
        if path not in self._verified:
            if said != _digest(tensors):
                raise InputError(
                    f"{path}: its numbers are not those that were written (the digest differs); "
                    f"{_REMAKE}"
                )
            self._verified.add(path)
        return tensors


@dataclass(frozen=True)
class RowSource:
    """Rows of one site and variant: what dictionary training reads."""

    shards: Shards
    site: str
    variant: str

    def __repr__(self) -> str:
        return f"RowSource({len(self):,} rows of {self.d_model} at {self.site}, {self.variant})"

    @property
    def d_model(self) -> int:
        """Width of a row."""
        return self.shards.d_model

    @property
    def sizes(self) -> Sequence[int]:
        """Kept rows of each chunk."""
        return self.shards.sizes

    def __len__(self) -> int:
        return len(self.shards)

    def __iter__(self) -> Iterator[Float[Tensor, "rows d"]]:
        """The rows, a shard at a time."""
        return self.chunks()

    def chunks(self, order: Sequence[int] | None = None) -> Iterator[Float[Tensor, "rows d"]]:
        """The rows, a shard at a time, in the shards' order or another."""
        return self.shards.chunks(self.site, self.variant, order)

    def to_tensor(self, most: int | None = None) -> Float[Tensor, "rows d"]:
        """The first `most` rows in memory, all by default."""
        return self.shards.load(self.site, self.variant, most)


def _check(
    folder: Path, key: str, number: int, identity: str, expected: Mapping[str, Sequence[int]]
) -> None:
    """Refuse a file that is not the one that was written for its place, by its header alone."""
    path = _path(folder, key, number)
    require_plain(path)
    try:
        with safe_open(path, framework="pt") as file:
            said = _said(file.metadata())
            names = list(file.keys())
            shapes = {name: list(file.get_slice(name).get_shape()) for name in names}
    except FileNotFoundError:
        raise InputError(f"{path}: shard is missing; {_REMAKE}") from None
    except (OSError, SafetensorError, IndexError) as error:
        raise InputError(
            f"{path}: truncated or broken shard ({first_line(error)}); {_REMAKE}"
        ) from None
    if said.get("identity") != identity:
        raise InputError(f"{path}: foreign shard, made from other activations; {_REMAKE}")
    if "sha256" not in said:
        raise InputError(f"{path}: of an earlier version, without a digest; {_REMAKE}")
    if said.get("place") != f"{key} {number}":
        raise InputError(f"{path}: foreign shard, written as {said.get('place')}; {_REMAKE}")
    wanted = {name: list(shape) for name, shape in expected.items()}
    if shapes != wanted:
        raise InputError(f"{path}: holds {shapes}, expected {wanted}; {_REMAKE}")


def _said(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What a file says of itself; of an earlier version's, or a foreign one, its bare metadata."""
    try:
        return dict(json.loads((metadata or {})[_SAID]))
    except (KeyError, ValueError, TypeError, RecursionError):
        return dict(metadata or {})


def _path(folder: Path, key: str, number: int) -> Path:
    stem = key if key == "outliers" else f"{key}-{number:05d}"
    return folder / f"{stem}.safetensors"


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    return json.dumps({name: list(tensors[name].shape) for name in sorted(tensors)})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors: names, types, shapes and numbers."""
    found = hashlib.sha256(_shapes(tensors).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

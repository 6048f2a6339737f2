"""Activations on disk: shards with a manifest, written once, read back as an iterator.

A folder holds `manifest.json`, `tokens-00000.safetensors` (document, position, token, response,
one entry a row) and `<site>/<face>-00000.safetensors` (`rows`, [rows, d_model]). Rows of all files
stand in the same order. Rows at which the base norm is an outlier are listed in
`outliers.safetensors` and left out on reading.
"""

from __future__ import annotations

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
from lorascope.errors import InputError
from lorascope.runs import read_json, write_atomically

BASE = "base"
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
        """Append rows: `activations` maps (site, face) to [rows, d_model] in the tokens' order."""
        for name in _TOKEN_FIELDS:
            self._pending.setdefault(name, []).append(getattr(tokens, name))
        for (site, face), rows in activations.items():
            stored = rows.to(self.dtype).cpu()
            self._pending.setdefault(f"{site}/{face}", []).append(stored)
        self._waiting += len(tokens)
        if self._waiting >= self.shard_rows:
            self._flush()

    def close(self, outliers: Int[Tensor, " outliers"], facts: Mapping[str, Any]) -> None:
        """Write what is left, the indices of rows to leave out, and the manifest with `facts`."""
        if self._waiting:
            self._flush()
        if len(outliers):
            self._write("outliers", {"rows": outliers})
        manifest = {
            "identity": self.identity,
            "rows": self.rows,
            "shards": self.shards,
            "outliers": len(outliers),
            **facts,
        }
        write_atomically(self.folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")

    def _flush(self) -> None:
        number = f"{len(self.shards):05d}"
        joined = {key: torch.cat(parts) for key, parts in self._pending.items()}
        tokens = {name: joined.pop(name).contiguous() for name in _TOKEN_FIELDS}
        self._write(f"tokens-{number}", tokens)
        for key, rows in joined.items():
            self._write(f"{key}-{number}", {"rows": rows.contiguous()})
        self.shards.append(self._waiting)
        self.rows += self._waiting
        self._pending, self._waiting = {}, 0

    def _write(self, name: str, tensors: dict[str, Tensor]) -> None:
        path = self.folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata={"identity": self.identity})


@dataclass(frozen=True)
class Shards:
    """A finished folder of activations, read shard by shard.

    Raises:
        InputError: on `open`, a file is missing, truncated, or belongs to other activations.
    """

    folder: Path
    manifest: Mapping[str, Any]
    _kept: Bool[Tensor, " rows"] = field(repr=False)

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Open a folder and check every file's shape and origin without reading its rows."""
        manifest = read_json(folder / "manifest.json")
        try:
            rows = int(manifest["rows"])
            keys = ["tokens", *(f"{s}/{f}" for s in manifest["sites"] for f in manifest["faces"])]
            for key in keys:
                for number, expected in enumerate(manifest["shards"]):
                    _check(folder / f"{key}-{number:05d}.safetensors", manifest, expected)
            outliers = folder / "outliers.safetensors"
            if manifest["outliers"]:
                _check(outliers, manifest, manifest["outliers"])
        except KeyError as error:
            raise InputError(f"{folder}/manifest.json: lacks {error}; remake this folder") from None
        kept = torch.ones(rows, dtype=torch.bool)
        if manifest["outliers"]:
            kept[load_file(outliers)["rows"]] = False
        return cls(folder, manifest, kept)

    @property
    def sites(self) -> list[str]:
        """Names of the captured sites, shallow to deep."""
        return list(self.manifest["sites"])

    @property
    def adapters(self) -> list[str]:
        """Names of the captured adapters, null adapters left out."""
        others = {BASE, *self.nulls}
        return [face for face in self.manifest["faces"] if face not in others]

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
        self, site: str, face: str, order: Sequence[int] | None = None
    ) -> Iterator[Float[Tensor, "rows d"]]:
        """Kept rows of one site as float32, a shard at a time, in the shards' order or `order`.

        `face` is "base" for h_base or an adapter's name for its delta.
        """
        starts = [0]
        for count in self.manifest["shards"]:
            starts.append(starts[-1] + count)
        for number in range(len(starts) - 1) if order is None else order:
            kept = self._kept[starts[number] : starts[number + 1]]
            yield self._file(f"{site}/{face}", number)["rows"][kept].float()

    def load(self, site: str, face: str, limit: int | None = None) -> Float[Tensor, "rows d"]:
        """The first `limit` kept rows (all by default) of one site in memory."""
        parts: list[Tensor] = []
        count = 0
        for chunk in self.chunks(site, face):
            parts.append(chunk if limit is None else chunk[: limit - count])
            count += len(parts[-1])
            if limit is not None and count >= limit:
                break
        return torch.cat(parts)

    def source(self, site: str, face: str) -> RowSource:
        """The rows of one (site, face) as something that can be iterated again and again."""
        return RowSource(self, site, face)

    def _file(self, key: str, number: int) -> dict[str, Tensor]:
        return load_file(self.folder / f"{key}-{number:05d}.safetensors")


@dataclass(frozen=True)
class RowSource:
    """Rows of one site and face: what dictionary training reads."""

    shards: Shards
    site: str
    face: str

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

    def chunks(self, order: Sequence[int] | None = None) -> Iterator[Float[Tensor, "rows d"]]:
        """The rows, a shard at a time."""
        return self.shards.chunks(self.site, self.face, order)


def _check(path: Path, manifest: Mapping[str, Any], expected: int) -> None:
    remake = "remove the run's activations folder and run again"
    try:
        with safe_open(path, framework="pt") as file:
            identity = (file.metadata() or {}).get("identity")
            names = list(file.keys())
            shape = file.get_slice(names[0]).get_shape()
    except FileNotFoundError:
        raise InputError(f"{path}: shard is missing; {remake}") from None
    except (OSError, SafetensorError, IndexError) as error:
        raise InputError(f"{path}: truncated or broken shard ({error}); {remake}") from None
    if identity != manifest["identity"]:
        raise InputError(f"{path}: foreign shard, made from other activations; {remake}")
    if shape[0] != expected:
        raise InputError(f"{path}: holds {shape[0]} rows, expected {expected}; {remake}")

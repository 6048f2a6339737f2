"""An adapter on disk: find it, read its configuration and weights, refuse what cannot be used."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lorascope import embedded
from lorascope.errors import InputError

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# Weights of a latent adapter, which acts by a hook; `latent_adapters` reads and writes them.
LATENT_FILE = "latent_adapter.safetensors"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
_REFUSED_FIELDS = {
    "layer_replication": "repeats blocks of the base model",
    "kasa_config": "changes the base weights when it is put on",
    "alora_invocation_tokens": "works only after its invocation tokens",
}


@dataclass(frozen=True)
class AdapterInfo:
    """What a face is made of. `rank` and those that follow are empty for a full fine-tune.

    Attributes:
        name: the face's name.
        path: hub id or folder it was asked for by; empty for a null adapter.
        base: id of the base model in the adapter's configuration; None where it says nothing.
        sha256: of the weights file; for a full fine-tune, the fingerprint of its weights as loaded;
            for a null adapter, of all that its numbers depend on.
        n_parameters: how many numbers the adapter, or the full fine-tune, has.
        rank: default rank, `r`; modules in a rank pattern differ.
        alpha: default `lora_alpha`.
        rslora: whether the scale is alpha / √rank instead of alpha / rank.
        dora: whether weights are renormalised to a learned magnitude.
        target_modules: module names, or one pattern, as in the configuration.
        modules_to_save: modules the adapter replaces whole.
        null_of: of a null adapter, the name of the adapter it is the null of; else empty.
        draw: of a null adapter, which of the random draws it is, from 0.
        factor: of a null adapter, what the draw of the adapter's spectrum is multiplied by.
    """

    name: str
    path: str
    base: str | None
    sha256: str
    n_parameters: int
    rank: int | None = None
    alpha: float | None = None
    rslora: bool = False
    dora: bool = False
    target_modules: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    null_of: str = ""
    draw: int | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class AdapterFiles:
    """A LoRA adapter as read from disk: its configuration and {key: tensor} as PEFT saves them."""

    info: AdapterInfo
    config: LoraConfig
    bias: str
    weights: dict[str, Tensor]


def check_names(names: Iterable[str]) -> None:
    """Refuse adapter names that mean something else or that files and tables cannot hold.

    Raises:
        InputError: a name is "base" or "lora", or has characters outside A-Z a-z 0-9 . _ -
    """
    for name in names:
        if name in ("base", "lora"):
            raise InputError(f'adapter name "{name}" is reserved: choose another name')
        if not _NAME.fullmatch(name):
            raise InputError(
                f'adapter name "{name}" is not usable: use letters, digits, ".", "_" and "-" only'
            )


def locate(name: str, path: str) -> Path | None:
    """The local folder of an adapter given as folder, `org/repo` or `org/repo/subfolder`.

    It is a LoRA adapter's, or a latent adapter's (`is_latent`).

    Returns:
        None where `path` holds a full checkpoint instead of an adapter.

    Raises:
        InputError: nothing is there, or neither an adapter nor a checkpoint is.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if path.startswith((".", "/", "~")) or "/" not in path:
            raise InputError(f'adapter "{name}": folder "{path}" does not exist: check the path')
        return _download(name, path)
    if (folder / CONFIG_FILE).is_file() or is_latent(folder):
        return folder
    if (folder / "config.json").is_file():
        return None
    raise InputError(
        f'adapter "{name}": "{path}" has no {CONFIG_FILE}: '
        "give the folder that PEFT's save_pretrained wrote"
    )


def is_latent(folder: Path) -> bool:
    """Whether a folder holds a latent adapter."""
    return (folder / LATENT_FILE).is_file()


def read(name: str, path: str, folder: Path) -> AdapterFiles:
    """The adapter in `folder`, configuration and weights, on the CPU.

    Raises:
        InputError: a file is missing or damaged, or it is no LoRA adapter PEFT can switch off.
    """
    fields = _read_fields(name, folder)
    config = _lora_config(name, folder, fields)
    file = next((folder / f for f in WEIGHT_FILES if (folder / f).is_file()), None)
    if file is None:
        raise InputError(f'adapter "{name}": no {WEIGHT_FILES[0]} in "{folder}": fetch it again')
    weights = _read_weights(name, file)
    targets = config.target_modules or ()
    info = AdapterInfo(
        name=name,
        path=path,
        base=config.base_model_name_or_path or None,
        sha256=sha256_of(file),
        n_parameters=sum(tensor.numel() for tensor in weights.values()),
        rank=config.r,
        alpha=float(config.lora_alpha),
        rslora=bool(config.use_rslora),
        dora=bool(config.use_dora),
        target_modules=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        modules_to_save=tuple(config.modules_to_save or ()),
    )
    bias = str(config.bias)
    # biases are switched by the adapted model: PEFT would write them into the base for good
    config.bias = "none"
    # what the initialisation would fill in is overwritten by the file
    config.init_lora_weights = True
    config.inference_mode = True
    return AdapterFiles(info, config, bias, weights)


def weights_digest(name: str, path: str) -> str:
    """What identifies an adapter without loading a model: its configuration and weights file.

    A full checkpoint is known by its configuration, and its weight files by name and size.

    Raises:
        InputError: as `locate`.
    """
    folder = locate(name, path)
    if folder is None:
        place = Path(path).expanduser()
        files = sorted(place.glob("*.safetensors")) if place.is_dir() else []
        listing = [path, *(f"{file.name} {file.stat().st_size}" for file in files)]
        return hashlib.sha256("\n".join(listing).encode()).hexdigest()
    names = (CONFIG_FILE, *WEIGHT_FILES, LATENT_FILE)
    found = [folder / file for file in names if (folder / file).is_file()]
    return hashlib.sha256("".join(sha256_of(file) for file in found).encode()).hexdigest()


def check_base(info: AdapterInfo, id: str, loaded_from: str | None, force: bool) -> None:
    """Refuse an adapter whose configuration names another base model.

    Args:
        id: what the base model was asked for by.
        loaded_from: the name in the base model's own configuration.
        force: accept it all the same.

    Raises:
        InputError: it does.
    """
    candidates = [id, loaded_from or id]
    if embedded.is_embedded(id):
        candidates.append(str(embedded.model_path(id)))
    if not (force or info.base is None or same_base(info.base, candidates)):
        raise InputError(
            f'adapter "{info.name}" was made for "{info.base}", the model given is "{id}": '
            "give that model, or force=True if they are the same weights"
        )


def same_base(named: str, candidates: Iterable[str]) -> bool:
    """Whether an adapter's base id means one of `candidates`: the last path component decides."""
    return _last_component(named) in {_last_component(candidate) for candidate in candidates}


def sha256_of(file: Path) -> str:
    """The hash of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _last_component(model: str) -> str:
    parts = [part for part in re.split(r"[/\\]", model) if part]
    if "snapshots" in parts[1:]:
        # a snapshot in the Hugging Face cache: .../models--org--name/snapshots/<commit>
        parts = parts[parts.index("snapshots") - 1].split("--")
    return parts[-1].lower() if parts else ""


def _download(name: str, path: str) -> Path | None:
    organisation, repository, *inner = path.strip("/").split("/")
    prefix = "".join(f"{part}/" for part in inner)
    try:
        snapshot = snapshot_download(
            f"{organisation}/{repository}",
            allow_patterns=[
                prefix + file
                for file in (
                    CONFIG_FILE,
                    *WEIGHT_FILES,
                    LATENT_FILE,
                    "lorascope.json",
                    "config.json",
                )
            ],
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f'adapter "{name}": "{path}" is no folder and cannot be fetched: check the id and the '
            "network; with HF_HUB_OFFLINE=1 it must already be in the local Hugging Face cache "
            f"({reason})"
        ) from error
    folder = Path(snapshot, *inner)
    if (folder / CONFIG_FILE).is_file() or is_latent(folder):
        return folder
    if (folder / "config.json").is_file() and not inner:
        return None
    raise InputError(f'adapter "{name}": "{path}" has no {CONFIG_FILE}: check the subfolder')


def _read_fields(name: str, folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f'adapter "{name}": {file} is not valid JSON ({error}): fetch it again'
        ) from error
    if not isinstance(fields, dict):
        raise InputError(f'adapter "{name}": {file} holds no JSON object: fetch it again')
    kind = str(fields.get("peft_type"))
    if kind.upper() != "LORA":
        raise InputError(f'adapter "{name}": its peft_type is {kind}, only LORA is supported')
    for field, effect in _REFUSED_FIELDS.items():
        if fields.get(field):
            raise InputError(f'adapter "{name}": {field} is not supported, it {effect}')
    start = str(fields.get("init_lora_weights", "")).lower()
    if start.startswith(_BASE_CHANGING_INITS):
        raise InputError(
            f'adapter "{name}": its init_lora_weights, {start}, changes the base weights: convert '
            "it with save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    return fields


def _lora_config(name: str, folder: Path, fields: dict[str, Any]) -> LoraConfig:
    try:
        return LoraConfig.from_pretrained(str(folder))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        written = fields.get("peft_version", "an unknown version")
        raise InputError(
            f'adapter "{name}": PEFT cannot read its {CONFIG_FILE}, written by PEFT {written}: '
            f"{reason}"
        ) from error


def _read_weights(name: str, file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise _unreadable(name, file, error) from error
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise InputError(f'adapter "{name}": {file} holds more than tensors: it is not loaded')
    if not weights:
        raise InputError(f'adapter "{name}": {file} holds no tensors: fetch it again')
    return weights


def _unreadable(name: str, file: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120]
    return InputError(
        f'adapter "{name}": {file} is truncated or damaged: fetch it again ({reason})'
    )

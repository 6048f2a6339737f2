"""An adapter on disk: find it, read its configuration and weights, refuse what cannot be used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import snapshot_download, try_to_load_from_cache
from torch import Tensor

from lorascope import embedded
from lorascope.config import digest
from lorascope.errors import InputError
from lorascope.foreign import parse_json
from lorascope.models.adapter_config import LORA, read_config
from lorascope.models.adapter_weights import read_weights
from lorascope.models.gguf_files import gguf_of
from lorascope.models.identity import model_identity
from lorascope.models.load import how_to_reach
from lorascope.models.places import (
    CONFIG_FILE,
    LATENT_FILE,
    adapter_folder,
    adapter_in,
    adapters_below,
    holds_adapter,
    is_local,
    several,
)
from lorascope.models.same_weights import compare, files_of

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
# How the name of a GGUF file ends: Q4_K_M, IQ2_XS, f16.
_QUANTISED_NAME = re.compile(r"[.-](I?Q\d\w*|B?F\d+)$", re.IGNORECASE)
# Weights of a whole model, whole or in shards.
_WHOLE = ("model*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class AdapterInfo:
    """What a variant is made of.

    `kind`, `target_modules` and `modules_to_save` are empty for a full fine-tune; the fields about
    rank and scale are LoRA's alone.

    Attributes:
        name: the variant's name.
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
        extra_tokens: tokens that its vocabulary has beyond the base's. They are left out: texts of
            the base never hold them, and probabilities are over the base's vocabulary.
        null_of: of a null adapter, the name of the adapter it is the null of; else empty.
        draw: of a null adapter, which of the random draws it is, from 0.
        factor: of a null adapter, what the draw of the adapter's spectrum is multiplied by.
        kind: PEFT's tuner type, "LORA" or another; empty for what is no adapter of PEFT's.
        base_compared: what of the weights of `base` and of the model given was compared and agrees;
            empty where the name decided.
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
    extra_tokens: int = 0
    null_of: str = ""
    draw: int | None = None
    factor: float = 1.0
    kind: str = ""
    base_compared: str = ""


@dataclass(frozen=True)
class AdapterFiles:
    """A PEFT adapter as read from disk: its configuration and {key: tensor} as PEFT saves them."""

    info: AdapterInfo
    config: Any
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

    It is a LoRA adapter's, or a latent adapter's (`is_latent`). Where the folder given holds none
    and one folder below it does (`checkpoint-500`, an adapter with a name of its own), that one.

    Returns:
        None where `path` holds a full checkpoint instead of an adapter.

    Raises:
        InputError: nothing is there, neither an adapter nor a checkpoint is, or several are below.
    """
    folder = adapter_folder(name, path)
    if folder is None:
        return _download(name, path)
    return adapter_in(name, path, folder)


def is_at_hand(path: str) -> bool:
    """Whether an adapter can be looked at without the network; of a wrong path `locate` says so."""
    if Path(path).expanduser().is_dir() or is_local(path) or "/" not in path:
        return True
    organisation, repository, *inner = path.strip("/").split("/")
    files = ("/".join([*inner, file]) for file in (CONFIG_FILE, LATENT_FILE, "config.json"))
    repo = f"{organisation}/{repository}"
    return any(isinstance(try_to_load_from_cache(repo, file), str) for file in files)


def holds_whole_model(folder: Path) -> bool:
    """Whether a folder holds the weights of a whole model."""
    weights = any(next(folder.glob(pattern), None) for pattern in _WHOLE)
    return weights and (folder / "config.json").is_file()


def read(name: str, path: str, folder: Path) -> AdapterFiles:
    """The adapter in `folder`, configuration and weights, on the CPU.

    Raises:
        InputError: a file is missing or damaged, or it is no adapter PEFT can switch off.
    """
    config: Any = read_config(name, folder)
    file = next((folder / f for f in WEIGHT_FILES if (folder / f).is_file()), None)
    if file is None:
        raise InputError(f'adapter "{name}": no {WEIGHT_FILES[0]} in "{folder}": fetch it again')
    kind = str(config.peft_type.value)
    weights = read_weights(name, file, integers=kind != LORA)
    targets = getattr(config, "target_modules", None) or ()
    info = AdapterInfo(
        name=name,
        path=path,
        base=config.base_model_name_or_path or None,
        sha256=sha256_of(file),
        n_parameters=sum(tensor.numel() for tensor in weights.values()),
        target_modules=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        modules_to_save=tuple(getattr(config, "modules_to_save", None) or ()),
        kind=kind,
    )
    config.inference_mode = True
    if hasattr(config, "init_lora_weights"):
        # what the initialisation would fill in is overwritten by the file
        config.init_lora_weights = True
    if kind != LORA:
        return AdapterFiles(info, config, "none", weights)
    info = replace(
        info,
        rank=config.r,
        alpha=float(config.lora_alpha),
        rslora=bool(config.use_rslora),
        dora=bool(config.use_dora),
    )
    bias = str(config.bias)
    # biases are switched by the adapted model: PEFT would write them into the base for good
    config.bias = "none"
    return AdapterFiles(info, config, bias, weights)


def weights_digest(name: str, path: str) -> str:
    """What identifies an adapter without loading a model: its configuration and weights file.

    The configuration counts as what it says, not as it is written: PEFT writes sets in any order. A
    full checkpoint is known by a fingerprint of its files.

    Raises:
        InputError: as `locate`.
    """
    folder = locate(name, path)
    if folder is None:
        return model_identity(path)
    names = (*WEIGHT_FILES, LATENT_FILE)
    found = [sha256_of(folder / file) for file in names if (folder / file).is_file()]
    config = folder / CONFIG_FILE
    if config.is_file():
        found.append(digest(without_order(parse_json(config.read_bytes(), config))))
    return hashlib.sha256("".join(found).encode()).hexdigest()


def without_order(data: Any) -> Any:
    """Plain data in which lists of names, which PEFT keeps as sets, have one order."""
    if isinstance(data, dict):
        return {key: without_order(value) for key, value in data.items()}
    if isinstance(data, list) and all(isinstance(item, str) for item in data):
        return sorted(data)
    return data


def check_base(
    info: AdapterInfo,
    id: str,
    loaded_from: str | None,
    force: bool,
    revision: str | None = None,
) -> str:
    """Refuse an adapter whose configuration names another base model.

    Weights decide where those of both models are on this machine: a re-upload under another name is
    the same model, another model in a folder of the same name is not. Else names do.

    Args:
        id: what the base model was asked for by.
        loaded_from: the name in the base model's own configuration.
        force: accept it all the same.
        revision: of the base model.

    Returns:
        what of the two models' weights was compared; empty where nothing was.

    Raises:
        InputError: it does.
    """
    if force or info.base is None or info.base == id:
        return ""
    folders = files_of(info.base), files_of(id, revision)
    found = None
    if folders[0] is not None and folders[1] is not None:
        if folders[0].resolve() == folders[1].resolve():
            return ""
        found = compare(folders[0], folders[1])
    if found is not None and found.same:
        return f'of "{info.base[:120]}" and "{id}" {found.about}'
    candidates = [id, loaded_from or id, *gguf_names(id)]
    if embedded.is_embedded(id):
        candidates.append(str(embedded.model_path(id)))
    if found is None and same_base(info.base, candidates):
        return ""
    if found is not None:
        seen = f"their weights are not the same ({found.about})"
    elif folders[0] is None:
        seen = "only the names were compared, its weights are not on this machine"
    else:
        seen = "only the names were compared, the weights of the two are not stored alike"
    raise InputError(
        f'adapter "{info.name}" was made for "{info.base[:120]}", the model given is "{id}"; '
        f"{seen}: give that model, or say that they are the same weights: --force on the command "
        "line, force: true in a study, force=True in Python"
    )


def same_base(named: str, candidates: Iterable[str]) -> bool:
    """Whether an adapter's base id means one of `candidates`: the last path component decides."""
    return _last_component(named) in {_last_component(candidate) for candidate in candidates}


def gguf_names(id: str) -> list[str]:
    """What the model in a GGUF file is called: the file's name without how it was quantised."""
    inside = gguf_of(id)
    return [] if inside is None else [_QUANTISED_NAME.sub("", Path(inside.file).stem)]


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
    files = (CONFIG_FILE, *WEIGHT_FILES, LATENT_FILE, "lorascope.json", "config.json")
    below = f"{prefix}*/{CONFIG_FILE}"
    try:
        snapshot = snapshot_download(
            f"{organisation}/{repository}",
            allow_patterns=[*(prefix + file for file in files), below],
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f'adapter "{name}": "{path}" is no folder and cannot be fetched: '
            f"{how_to_reach('adapter')} ({reason})"
        ) from error
    folder = Path(snapshot, *inner)
    if holds_adapter(folder):
        return folder
    if (folder / "config.json").is_file() and not inner:
        return None
    deeper = [
        str(PurePosixPath(path, *one.relative_to(folder).parts)) for one in adapters_below(folder)
    ]
    if len(deeper) == 1:
        return _download(name, deeper[0])
    if deeper:
        raise several(name, path, deeper)
    raise InputError(f'adapter "{name}": "{path}" has no {CONFIG_FILE}: check the subfolder')

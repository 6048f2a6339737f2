"""Load a model with adapters of any kind on it, latent adapters among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from lorascope.errors import InputError, require_kind
from lorascope.latent_adapters.adapter import LatentAdapter, require_width
from lorascope.latent_adapters.card import WEIGHTS
from lorascope.models import adapted
from lorascope.models.adapted import AdaptedModel
from lorascope.models.adapter_files import AdapterInfo, sha256_of
from lorascope.models.prepared import Attached, prepare


def load(
    model: str | Path,
    adapters: Mapping[str, str | Path] | None = None,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    force: bool = False,
) -> AdaptedModel:
    """A model with adapters on it, each checked to be the one it should be.

    Args:
        model: Hugging Face id, folder, "embedded" or "embedded-it".
        adapters: {name: folder, `org/repo` or `org/repo/subfolder`} of a PEFT LoRA adapter, of a
            latent adapter, whose dictionary is opened from where its card says, or of a full
            fine-tune of the same base.
        revision, dtype, device, device_map: of the base model, see `models.load.load_base`.
        force: accept adapters whose configuration names another base model.

    Raises:
        InputError: something is missing, damaged, or does not fit; says what to do.
        RuntimeError: the base no longer computes the same once the adapters are on and off.

    Examples:
        >>> model = ls.load("embedded", {"mine": "runs/adapters/adapters/r2"})
        >>> model.variants
        ('base', 'mine')
    """
    wanted = 'a Hugging Face id, a folder, "embedded" or "embedded-it"'
    require_kind(model, (str, Path), "the model", wanted)
    named = '{"r4": "FOLDER"}, a name and a path or id for each'
    require_kind(adapters, (Mapping, type(None)), "adapters", named)
    for name, place in (adapters or {}).items():
        require_kind(name, str, "the name of an adapter", named)
        require_kind(place, (str, Path), f'the address of adapter "{name}"', "a path or an id")
    require_kind(dtype, (str, torch.dtype), "dtype", '"auto" or "float32" for instance')
    return adapted.load(
        str(model),
        adapters,
        revision=revision,
        dtype=str(dtype).removeprefix("torch."),
        device=device,
        device_map=device_map,
        force=force,
        opener=attached,
    )


def check(
    model: str,
    adapters: Mapping[str, str | Path],
    *,
    revision: str | None = None,
    force: bool = False,
) -> None:
    """Everything about adapters that `load` checks before it loads a weight of the model.

    Raises:
        InputError: as `load`.
    """
    prepare(model, adapters, revision=revision, force=force, opener=attached)


def attached(name: str, path: str, folder: Path, config: PreTrainedConfig) -> Attached:
    """A saved latent adapter as a variant of the model it was trained for.

    Raises:
        InputError: its dictionary cannot be opened, is another one, or is of another width; or the
            adapter changes nothing.
    """
    found = LatentAdapter.from_pretrained(folder)
    require_width(config, found.dictionary)
    if not all(len(latents) for latents in found.support()) or not bool(found.scale.any()):
        raise InputError(
            f'adapter "{name}" changes nothing: it reads or writes no latent; it may have been '
            "saved before training"
        )
    card = found.card
    assert card is not None
    info = AdapterInfo(
        name=name,
        path=path,
        base=card.model or None,
        sha256=sha256_of(folder / WEIGHTS),
        n_parameters=sum(parameter.numel() for parameter in found.parameters()),
        rank=found.rank,
    )
    return Attached(info, found.attached)

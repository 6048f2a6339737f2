"""Load a model with adapters of any kind on it, latent adapters among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lorascope.latent_adapters.adapter import LatentAdapter, require_width
from lorascope.latent_adapters.card import WEIGHTS
from lorascope.models import adapted
from lorascope.models.adapted import AdaptedModel, Attached
from lorascope.models.adapter_files import AdapterInfo, sha256_of


def load(
    model: str,
    adapters: Mapping[str, str | Path] | None = None,
    *,
    revision: str | None = None,
    dtype: str = "auto",
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
    """
    return adapted.load(
        model,
        adapters,
        revision=revision,
        dtype=dtype,
        device=device,
        device_map=device_map,
        force=force,
        opener=attached,
    )


def attached(name: str, path: str, folder: Path, model: PreTrainedModel) -> Attached:
    """A saved latent adapter as a face of the model it was trained for.

    Raises:
        InputError: its dictionary cannot be opened, is another one, or is of another width.
    """
    found = LatentAdapter.from_pretrained(folder)
    require_width(model, found.dictionary)
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

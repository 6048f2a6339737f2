"""What can be checked of adapters before the base's weights are loaded.

Files are found and read, configurations parsed, tensors looked at and held against the layers of
a model without weights: what is wrong with an adapter shows in seconds, in `plan` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedModel

from lorascope import embedded
from lorascope.errors import InputError
from lorascope.models import dimensions
from lorascope.models.adapter_config import LORA
from lorascope.models.adapter_files import (
    AdapterFiles,
    AdapterInfo,
    check_base,
    check_names,
    holds_whole_model,
    locate,
    read,
)
from lorascope.models.attaching import fit
from lorascope.models.freezing import random_state_kept
from lorascope.models.load import read_config, skeleton
from lorascope.models.patterns import require_bounded
from lorascope.models.places import is_latent
from lorascope.models.tuned_copies import share, try_without_weights

Attach = Callable[[PreTrainedModel], AbstractContextManager[None]]


@dataclass(frozen=True)
class Attached:
    """An adapter that acts by hooks and changes no weight.

    Attributes:
        attach: puts it on the base model for the time of a `with`.
    """

    info: AdapterInfo
    attach: Attach


class Opener(Protocol):
    """Opens adapters that act by hooks: (name, path, its folder, the base's configuration)."""

    def __call__(
        self, name: str, path: str, folder: Path, config: PreTrainedConfig
    ) -> Attached: ...


@dataclass(frozen=True)
class Prepared:
    """One adapter, read: a LoRA adapter's files, one that acts by hooks, or else a full checkpoint.

    Attributes:
        path: hub id or folder it was asked for by.
    """

    name: str
    path: str
    files: AdapterFiles | None = None
    attached: Attached | None = None


def prepare(
    model: str,
    adapters: Mapping[str, str | Path],
    *,
    revision: str | None = None,
    force: bool = False,
    opener: Opener | None = None,
) -> list[Prepared]:
    """Read adapters of a model and check all that can be checked without the model's weights.

    Args:
        model: Hugging Face id, folder, "embedded" or "embedded-it".
        adapters: {name: folder, `org/repo` or `org/repo/subfolder`}.
        force: accept adapters whose configuration names another base model.
        opener: opens latent adapters.

    Raises:
        InputError: something is missing, damaged, or does not fit; says what to do.
    """
    check_names(adapters)
    if not adapters:
        return []
    config = read_config(model, revision)
    found = []
    for name, place in adapters.items():
        one = _read(name, str(place), model, config, opener)
        found.append(_for_this_base(one, model, config.name_or_path, force, revision))
    _try_on(config, [one.files for one in found if one.files is not None])
    return found


def require_same_sizes(name: str, path: str, base: object, tuned: object) -> None:
    """Refuse a full fine-tune of another architecture or other sizes; more tokens are let through.

    Args:
        base, tuned: models or configurations.

    Raises:
        InputError: says what differs.
    """
    ours, theirs = dimensions.of(base), dimensions.of(tuned)
    for what, size in ours.items():
        more_tokens = what == "vocabulary" and int(theirs[what]) >= int(size)
        if theirs[what] != size and not more_tokens:
            raise InputError(
                f'adapter "{name}": the checkpoint in "{path}" has {what} '
                f"{theirs[what]}, the base model {size}: give a fine-tune of this base"
            )


def _read(
    name: str, path: str, model: str, config: PreTrainedConfig, opener: Opener | None
) -> Prepared:
    folder = locate(name, path)
    if folder is None:
        require_same_sizes(name, path, config, read_config(path))
        return Prepared(name, path)
    if is_latent(folder):
        if opener is None:
            raise InputError(f'adapter "{name}" is a latent adapter: load it with lorascope.load')
        return Prepared(name, path, attached=opener(name, path, folder, config))
    base = embedded.model_path(model) if embedded.is_embedded(model) else Path(model).expanduser()
    if holds_whole_model(folder) and folder.resolve() != Path(base).resolve():
        raise InputError(
            f'adapter "{name}": "{folder}" holds the weights of a whole model and an adapter, and '
            "one of them is meant: move the adapter's files, adapter_config.json and its weights, "
            "to a folder of their own and give the one you mean"
        )
    return Prepared(name, path, files=read(name, path, folder))


def _for_this_base(
    one: Prepared, model: str, loaded_from: str | None, force: bool, revision: str | None
) -> Prepared:
    """An adapter after `check_base`, with what was compared in its `info`."""

    def checked(info: AdapterInfo) -> AdapterInfo:
        return replace(info, base_compared=check_base(info, model, loaded_from, force, revision))

    if one.files is not None:
        return replace(one, files=replace(one.files, info=checked(one.files.info)))
    if one.attached is not None:
        return replace(one, attached=replace(one.attached, info=checked(one.attached.info)))
    return one


def _try_on(config: PreTrainedConfig, adapters: list[AdapterFiles]) -> None:
    """Put adapters on a model without weights: LoRA one after the other, others each alone."""
    bare = skeleton(config) if adapters else None
    if bare is None:
        return
    originals = dict(bare.named_parameters(remove_duplicate=False))
    names = [*(name for name, _ in bare.named_modules()), *originals]
    peft: PeftModel | None = None
    copies = {f.info.name: share(bare) for f in adapters if f.info.kind != LORA}
    with random_state_kept():
        for i, files in enumerate(adapters):
            require_bounded(files.info.name, files.config, names)
            if files.info.name in copies:
                try_without_weights(copies[files.info.name], files)
                continue
            with torch.device("meta"):
                peft = fit(bare, peft, files, f"variant_{i}", originals).peft

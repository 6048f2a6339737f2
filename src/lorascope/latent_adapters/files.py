"""A latent adapter's files: fetched, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorascope.errors import InputError

# Of an adapter that carries its dictionary along: the folder of it.
DICTIONARY = "dictionary"
_TENSORS = ("read", "read_latents", "scale", "write", "written_latents")
_AXES = {"read": 2, "write": 2, "scale": 1}


def fetched(place: str, revision: str | None, names: Sequence[str], **options: Any) -> Path:
    """The local folder of a latent adapter, fetched from the hub where it is no folder.

    Raises:
        InputError: nothing is there.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        kept = ("cache_dir", "force_download", "local_files_only", "token")
        wanted = {name: options[name] for name in kept if options.get(name) is not None}
        try:
            found = snapshot_download(
                place,
                revision=revision,
                allow_patterns=[*names, f"{DICTIONARY}/*"],
                **wanted,
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f"{place}: no folder, and cannot be fetched from the hub; check the path, the id "
                f"and the network ({reason})"
            ) from None
        folder = Path(found)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{place}: has no {missing[0]}; give a folder that save_pretrained of a latent adapter "
            "wrote"
        )
    return folder


def read_weights(path: Path) -> dict[str, Tensor]:
    """The five tensors of a saved latent adapter.

    Raises:
        InputError: the file is damaged, or its tensors do not belong together.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read ({first}); fetch it again") from None
    if sorted(found) != list(_TENSORS):
        raise InputError(
            f"{path}: holds {', '.join(sorted(found)) or 'nothing'}, not the tensors "
            "of a latent adapter; fetch it again"
        )
    for name, tensor in found.items():
        counts = name.endswith("latents")
        if tensor.is_floating_point() == counts or tensor.ndim != (1 if counts else _AXES[name]):
            raise InputError(
                f"{path}: {name} holds {str(tensor.dtype).removeprefix('torch.')} of shape "
                f"{tuple(tensor.shape)}, which is none of a latent adapter; fetch it again"
            )
        if not counts and not bool(tensor.isfinite().all()):
            raise InputError(f"{path}: {name} holds NaN or infinity; train the adapter again")
    r = len(found["scale"])
    for factor, latents in (("read", "read_latents"), ("write", "written_latents")):
        shape = (r, len(found[latents]))
        if tuple(found[factor].shape) != shape:
            raise InputError(
                f"{path}: {factor} has shape {tuple(found[factor].shape)}, expected {shape}; fetch "
                "it again"
            )
    return found


def require_latents(path: Path, tensors: Mapping[str, Tensor], n_latents: int) -> None:
    """Refuse latents that the dictionary does not have, or that stand there twice.

    Raises:
        InputError: there are some.
    """
    for name in ("read_latents", "written_latents"):
        latents = tensors[name].tolist()
        wrong = [one for one in latents if not 0 <= one < n_latents]
        if wrong or len(set(latents)) < len(latents):
            said = f"{wrong[0]} is none of {n_latents:,} latents" if wrong else "one stands twice"
            raise InputError(f"{path}: {name}: {said}; fetch it again")


def write_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write them beside their final name and rename."""
    partial = path.with_suffix(".partial")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial
    )
    partial.replace(path)

"""Whether a model's or an adapter's folder exists; nothing here imports a large library."""

from __future__ import annotations

from pathlib import Path

from lorascope import embedded
from lorascope.errors import InputError, require_utf8
from lorascope.models.gguf_files import gguf_of

CONFIG_FILE = "adapter_config.json"
# Weights of a latent adapter, which acts by a hook; `latent_adapters` reads and writes them.
LATENT_FILE = "latent_adapter.safetensors"
# A trainer keeps its checkpoints in folders below, and PEFT adapters with a name of their own.
_DEEPEST = 2


def adapter_folder(name: str, path: str) -> Path | None:
    """The folder that an adapter was given as; None for an id of the hub.

    Raises:
        InputError: it is written as a folder, and there is none.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        require_utf8(folder)
        return folder
    if is_local(path) or "/" not in path:
        raise no_folder(f'adapter "{name}": folder', path)
    return None


def no_folder(what: str, path: str | Path) -> InputError:
    """What is said of a path that is no folder: a file, or nothing."""
    if Path(path).expanduser().exists():
        return InputError(f'{what} "{path}" is a file: give the folder that holds it')
    return InputError(f'{what} "{path}" does not exist: check the path')


def adapter_in(name: str, path: str, folder: Path) -> Path | None:
    """The folder of the adapter in or below a folder; None where it holds a whole checkpoint.

    Raises:
        InputError: neither an adapter nor a checkpoint is there, or several adapters are below.
    """
    if holds_adapter(folder):
        return folder
    if (folder / "config.json").is_file():
        return None
    below = adapters_below(folder)
    if len(below) == 1:
        return below[0]
    if below:
        raise several(name, path, [str(one.relative_to(folder)) for one in below])
    raise InputError(
        f'adapter "{name}": "{path}" has no {CONFIG_FILE}: '
        "give the folder that PEFT's save_pretrained wrote"
    )


def model_address(model: str) -> str:
    """The folder of a model, or its id where it is one of the hub.

    Of a model in a GGUF file it is the folder or id that the file lies in.

    Raises:
        InputError: it is written as a folder or file, and there is none, or no checkpoint in it.
    """
    if embedded.is_embedded(model):
        return str(embedded.model_path(model))
    if (inside := gguf_of(model)) is not None:
        return inside.source
    folder = Path(model).expanduser()
    if folder.is_dir():
        require_utf8(folder)
        if not (folder / "config.json").is_file():
            advice = "give a checkpoint folder"
            if (folder / CONFIG_FILE).is_file():
                advice = "it holds an adapter; give its base model, and the folder as the adapter"
            raise InputError(f'model folder "{model}" has no config.json: {advice}')
        return str(folder)
    if is_local(model) or model.count("/") > 1:
        raise no_folder("model folder", model)
    return model


def is_local(path: str) -> bool:
    """Whether an address can be nothing but a folder of this machine."""
    return path.startswith((".", "/", "~"))


def holds_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of PEFT's or a latent one."""
    return (folder / CONFIG_FILE).is_file() or is_latent(folder)


def is_latent(folder: Path) -> bool:
    """Whether a folder holds a latent adapter."""
    return (folder / LATENT_FILE).is_file()


def adapters_below(folder: Path) -> list[Path]:
    """Folders of adapters below a folder, those of trainers' checkpoints in order of their step."""
    found: list[Path] = []
    level = [folder]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _folders(outer)]
        found += [inner for inner in level if holds_adapter(inner)]
    return sorted(found, key=lambda one: [(len(part), part) for part in one.parts])


def several(name: str, path: str, below: list[str]) -> InputError:
    """Says which adapters lie further down."""
    shown = ", ".join(below[-4:])
    rest = f" and {len(below) - 4} more" if len(below) > 4 else ""
    return InputError(
        f'adapter "{name}": "{path}" holds {len(below)} adapters further down ({shown}{rest}): '
        "give one of these folders"
    )


def _folders(folder: Path) -> list[Path]:
    try:
        return [one for one in sorted(folder.iterdir()) if one.is_dir() and not one.is_symlink()]
    except OSError:
        return []

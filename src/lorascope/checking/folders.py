"""The folder of an adapter: where it is, what lies in it, and what its base says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope import embedded
from lorascope.checking.findings import Finding, listed
from lorascope.errors import InputError
from lorascope.foreign import JSON_BYTES, local_path, parse_json, read_bytes
from lorascope.models.places import CONFIG_FILE, adapter_folder, adapter_in, adapters_below

SAFE, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def find(name: str, path: str) -> Path:
    """The folder of a PEFT adapter given as a folder or an id of the hub.

    Raises:
        InputError: there is none, there are several, or it is a whole checkpoint or a latent
            adapter, which this does not look at.
    """
    given = adapter_folder(name, path)
    if given is not None:
        found = adapter_in(name, path, given)
    else:
        # The hub's client is not needed for folders.
        from lorascope.models.adapter_files import locate

        found = locate(name, path)
    if found is None:
        raise InputError(
            f'"{path}" holds a whole model, no adapter: give it to lorascope audit as --adapter'
        )
    if not (found / CONFIG_FILE).is_file():
        raise InputError(
            f'"{path}" is a latent adapter, which reads and writes latents and has no update of '
            "weights to look at: run lorascope audit with it as --adapter"
        )
    return found


def beside(folder: Path) -> list[Finding]:
    """What lies in the folder beside the adapter's own two files."""
    files = sorted(one.name for one in folder.iterdir() if one.is_file())
    found = []
    if SAFE in files and PICKLED in files:
        found.append(
            Finding(
                "several",
                "warning",
                f"{SAFE} and {PICKLED} lie side by side: the first is used; remove the other",
                PICKLED,
            )
        )
    elif PICKLED in files:
        found.append(
            Finding(
                "pickled",
                "error",
                f"the weights are pickled and were not opened: load them where that is safe and "
                f"save them as {SAFE}",
                PICKLED,
            )
        )
    others = [f for f in files if f.endswith(_PICKLES) and f != PICKLED]
    if others:
        found.append(
            Finding(
                "pickled",
                "note",
                f"pickled files lie beside the weights and were not opened: {listed(others)}",
                others[0],
                tuple(others),
            )
        )
    further = [f for f in files if f.endswith(".safetensors") and f != SAFE]
    if further:
        found.append(
            Finding(
                "several",
                "warning",
                f"further weights lie in the folder and are not used: {listed(further)}",
                further[0],
                tuple(further),
            )
        )
    below = [str(one.relative_to(folder)) for one in adapters_below(folder)]
    if below:
        found.append(
            Finding(
                "several",
                "note",
                f"{len(below)} more adapters lie in folders below and were not looked at: "
                f"{listed(below)}",
                "",
                tuple(below),
            )
        )
    return found


@dataclass(frozen=True)
class BaseFacts:
    """What a base model's configuration says that an adapter can be held against.

    Attributes:
        layers, vocabulary: how many it has; None where it does not say.
        tied: whether input and output embedding are one tensor.
    """

    layers: int | None
    vocabulary: int | None
    tied: bool


def base_facts(base: str | None) -> BaseFacts | None:
    """Of a base that is at hand, in a folder or in the hub's cache; None for others."""
    if not base:
        return None
    try:
        config = _config_of(base)
    except (InputError, OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    inner = config.get("text_config")
    text: dict[str, Any] = {**config, **inner} if isinstance(inner, dict) else config

    def count(*names: str) -> int | None:
        values = (text.get(name) for name in names)
        return next((v for v in values if isinstance(v, int) and not isinstance(v, bool)), None)

    return BaseFacts(
        count("num_hidden_layers", "n_layer"),
        count("vocab_size"),
        bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
    )


def _config_of(base: str) -> Any:
    folder = embedded.model_path(base) if embedded.is_embedded(base) else local_path(base)
    file: Path | str | None = folder / "config.json"
    if not Path(str(file)).is_file():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(base, "config.json")
        file = cached if isinstance(cached, str) else None
    if file is None:
        return None
    return parse_json(read_bytes(Path(file), JSON_BYTES), file)

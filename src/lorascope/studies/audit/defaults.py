"""Settings of an audit for which only an adapter is given: `lorascope audit ./my-lora`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorascope.errors import InputError
from lorascope.foreign import JSON_BYTES, parse_json, read_bytes
from lorascope.models.places import CONFIG_FILE, adapter_folder, adapter_in, model_address

# Where the stream is looked at by default, as shares of the model's depth.
DEPTHS = (0.25, 0.5, 0.75)
EMBEDDED = "embedded"
# Texts, and latents of a dictionary, where no texts are named.
DOCUMENTS, LATENTS = 400, 1024


def named_adapters(given: Sequence[str]) -> dict[str, str]:
    """{name: address} of `name=address`, or of addresses alone, which are named by their last part.

    Raises:
        InputError: one is empty, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, sign, address = text.partition("=")
        if not sign or "/" in name:
            address, own = text, Path(text.rstrip("/")).expanduser()
            name = re.sub(
                r"[^A-Za-z0-9._-]+", "-", own.resolve().name if own.is_dir() else own.name
            )
            name = name.strip("-.") or "adapter"
            if name in found:
                name = next(n for i in range(2, 1000) if (n := f"{name}-{i}") not in found)
        if not name or not address:
            raise InputError(
                f"--adapter {text}: expected name=path or a path, as in --adapter r4=runs/r4"
            )
        if name in found:
            raise InputError(f"--adapter {text}: the name {name} is given twice")
        found[name] = address
    return found


def base_of_adapters(adapters: Mapping[str, str]) -> str:
    """The base model that the adapters' own files name.

    Raises:
        InputError: one names none, or they name different ones: asks for --model.
    """
    named = {name: _base_named(name, address) for name, address in adapters.items()}
    bases = {base for base in named.values() if base}
    if len(bases) == 1 and all(named.values()):
        return bases.pop()
    if not bases:
        raise InputError(f"{', '.join(named)}: its files name no base model; give --model")
    said = ", ".join(f"{name}: {base or 'none'}" for name, base in named.items())
    raise InputError(f"the adapters' files name different base models ({said}); give --model")


def _base_named(name: str, address: str) -> str:
    folder = adapter_folder(name, address)
    if folder is not None:
        place = adapter_in(name, address, folder)
        path = None if place is None else place / CONFIG_FILE
        if path is None or not path.is_file():
            return ""
    else:
        path = _fetched(name, address)
    config = parse_json(read_bytes(path, JSON_BYTES), path, "fetch the adapter again")
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return base if isinstance(base, str) else ""


def _fetched(name: str, address: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(address, CONFIG_FILE))
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f'adapter "{name}": {CONFIG_FILE} of {address} cannot be fetched ({first[:160]}); '
            "check the id and the network, or give its folder"
        ) from None


def usual_sites(model: str, revision: str | None) -> list[str]:
    """Three depths of a model: after a quarter, a half and three quarters of its blocks.

    Raises:
        InputError: the model's configuration cannot be read.
    """
    model_address(model)
    from lorascope.models.load import read_config
    from lorascope.models.shapes import Shape

    blocks = Shape.of(read_config(model, revision)).blocks
    chosen = dict.fromkeys(min(blocks - 1, max(0, round(blocks * depth) - 1)) for depth in DEPTHS)
    return [f"layers.{index}" for index in chosen]


def completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an audit with what is left out: base model, sites and texts.

    Without texts it is a first look: some of the packaged instructions, smaller dictionaries.

    Args:
        data: plain settings with `adapters`.

    Raises:
        InputError: it cannot be told; says which option does.
    """
    found = json.loads(json.dumps(data))
    if "model" not in found:
        found["model"] = base_of_adapters(found["adapters"])
    if "sites" not in found:
        found["sites"] = usual_sites(str(found["model"]), found.get("revision"))
    texts = found.setdefault("texts", {})
    if isinstance(texts, dict) and "sources" not in texts:
        # A first look, in minutes: what is wanted in full names its texts.
        texts |= {"sources": [EMBEDDED], "documents": texts.get("documents", DOCUMENTS)}
        dictionaries = found.setdefault("dictionaries", {})
        if isinstance(dictionaries, dict):
            dictionaries.setdefault("architecture", {"n_latents": LATENTS})
    return dict(found)

"""SAELens layout: `cfg.json` + `sae_weights.safetensors`; what lorascope writes.

Tensors: `W_enc [d_in, d_sae]`, `W_dec [d_sae, d_in]`, `b_enc`, `b_dec`, `threshold` for JumpReLU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.runs import read_json, write_atomically

CONFIG, WEIGHTS, CARD = "cfg.json", "sae_weights.safetensors", "lorascope.json"
FILES = (CONFIG, WEIGHTS, CARD)
LAYOUT_VERSION = "6.0.0"
_ARCHITECTURES = {"standard": ReluDictionary, "jumprelu": JumpReluDictionary}
_TENSORS = {
    "encoder": "W_enc",
    "encoder_bias": "b_enc",
    "directions": "W_dec",
    "decoder_bias": "b_dec",
    "threshold": "threshold",
}


def recognises(folder: Path) -> bool:
    """Whether a folder holds this layout."""
    return (folder / CONFIG).exists() and (folder / WEIGHTS).exists()


def read(folder: Path) -> Dictionary:
    """Open a folder in SAELens layout.

    Raises:
        InputError: an architecture or a normalisation this reader does not know, missing or
            truncated tensors.
    """
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise InputError(f"{folder}/{CONFIG}: expected keys and values; fetch it again")
    architecture = _architecture(folder, config)
    try:
        tensors = load_file(folder / WEIGHTS)
        wanted = {
            k: v for k, v in _TENSORS.items() if k != "threshold" or architecture != "standard"
        }
        parts = {name: tensors[stored] for name, stored in wanted.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder}/{WEIGHTS}: cannot be read ({error}); fetch it again") from None
    except KeyError as error:
        raise InputError(f"{folder}/{WEIGHTS}: lacks tensor {error}; fetch it again") from None
    subtract = bool(config.get("apply_b_dec_to_input", True))
    try:
        return _ARCHITECTURES[architecture](
            **parts, subtract_bias=subtract, card=_card(folder, config)
        )
    except ValueError as error:
        raise InputError(f"{folder}/{WEIGHTS}: {error}; fetch it again") from None


def _architecture(folder: Path, config: dict[str, Any]) -> str:
    """The architecture, once nothing in the config says that the weights are not the whole of it.

    Older files name the activation function apart from the architecture.
    """
    architecture = str(config.get("architecture", "standard"))
    activation = config.get("activation_fn") or config.get("activation_fn_str") or "relu"
    if architecture not in _ARCHITECTURES or activation != "relu":
        raise InputError(
            f"{folder}: architecture {architecture!r} with {activation} is not one of "
            f"{', '.join(_ARCHITECTURES)} with relu; convert it with SAELens first"
        )
    normalised = config.get("normalize_activations")
    if normalised not in (None, False, True, "none", "expected_average_only_in"):
        raise InputError(
            f"{folder}: normalize_activations {normalised!r} changes the input at run time; "
            "fold it into the weights with SAELens first"
        )
    return architecture


def write(dictionary: Dictionary, folder: Path) -> None:
    """Write a dictionary so that SAELens opens it with equal encode and decode."""
    if isinstance(dictionary, JumpReluDictionary):
        architecture = "jumprelu"
    elif isinstance(dictionary, ReluDictionary):
        architecture = "standard"
    else:
        raise TypeError(f"{type(dictionary).__name__} has no SAELens layout")
    folder.mkdir(parents=True, exist_ok=True)
    buffers = dict(dictionary.named_buffers())
    tensors = {_TENSORS[name]: t.cpu().contiguous() for name, t in buffers.items()}
    save_file(tensors, folder / WEIGHTS)
    write_atomically(folder / CONFIG, json.dumps(_config(dictionary, architecture), indent=1))
    write_atomically(folder / CARD, json.dumps(dictionary.card.plain(), indent=1) + "\n")


def _config(dictionary: Dictionary, architecture: str) -> dict[str, Any]:
    card = dictionary.card
    block = card.site.removeprefix("layers.")
    metadata = {
        "model_name": card.model or None,
        "hook_name": f"blocks.{block}.hook_resid_post" if block else None,
        "hf_hook_name": f"model.{card.site}" if card.site else None,
        "prepend_bos": True,
        # Without a version SAELens takes the file for an old one and drops these names.
        "sae_lens_version": LAYOUT_VERSION,
        "lorascope_target": card.target,
    }
    return {
        "architecture": architecture,
        "d_in": dictionary.d_model,
        "d_sae": dictionary.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.subtract_bias,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata,
    }


def _card(folder: Path, config: dict[str, Any]) -> Card:
    if (folder / CARD).exists():
        card = Card.parse(read_json(folder / CARD), str(folder / CARD))
        return card.model_copy(update={"source": str(folder)})
    metadata = {**config, **(config.get("metadata") or {})}
    hook = str(metadata.get("hook_name") or "")
    parts = hook.split(".")
    site = f"layers.{parts[1]}" if hook.endswith("hook_resid_post") and len(parts) > 1 else ""
    return Card(site=site, model=str(metadata.get("model_name") or ""), source=str(folder))

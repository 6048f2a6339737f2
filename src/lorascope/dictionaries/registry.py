"""`saelens:release/id`: SAELens' own list of published dictionaries, which lies in its package.

The list says in which repository and folder a dictionary is and in which format. Where that is a
format with a reader here, the reader is used; else SAELens loads it and hands it over in its own
layout. Looking up needs neither the network nor an import of SAELens.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from lorascope.dictionaries.addresses import SCHEME, AskedDictionary, HubPlace, fetch, without_file
from lorascope.dictionaries.card import Card, same_model
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.formats import saelens
from lorascope.dictionaries.limits import plain_file, reason
from lorascope.errors import InputError, did_you_mean

# SAELens' names of formats, and ours.
_FORMATS = {
    "": "saelens",
    "sae_lens": "saelens",
    "gemma_2": "gemma_scope",
    "gemma_3": "gemma_scope_2",
    "llama_scope": "llama_scope",
    "sparsify": "sparsify",
    "dictionary_learning_1": "dictionary_learning",
    "llama_scope_r1_distill": "llamascopium",
    "qwen_scope": "qwen_scope",
}
# Formats whose releases have the model in their name, from which readers here take it. The list
# has gemma-2-9b for gemma-scope-9b-it-res, which were trained on gemma-2-9b-it.
_NAMED = ("gemma_2", "qwen_scope")
# What no dictionary here can do, by SAELens' name of the format or by a word in the path.
_OTHERS = {
    "gemma_2_transcoder": "a transcoder",
    "mwhanna_transcoder": "a transcoder",
    "mntss_clt_layer_transcoder": "one layer of a cross-layer transcoder (CLT)",
    "temporal": "a temporal dictionary, whose latents depend on earlier tokens",
}
_OTHER_PATHS = {
    "transcoder": "a transcoder",
    "clt": "one layer of a cross-layer transcoder (CLT)",
    "crosscoder": "a crosscoder",
}


@dataclass(frozen=True)
class Registered:
    """One entry of the list.

    Attributes:
        conversion: SAELens' name of the format; empty for its own layout.
        factor: what inputs are multiplied by, where weights wait for it.
        overrides: keys laid over the file's configuration.
        l0: mean active latents as stated; 0 where unknown.
    """

    release: str
    id: str
    repo: str
    path: str
    model: str
    conversion: str
    neuronpedia: str
    factor: float | None
    overrides: Mapping[str, Any]
    l0: float


def look_up(address: str) -> Registered:
    """The entry that `saelens:release/id` names.

    Raises:
        InputError: SAELens is not installed, or has no such release or id; names the likeliest.
    """
    release, slash, name = address.removeprefix(SCHEME).partition("/")
    if not release or not slash or not name:
        raise InputError(f"{address}: expected saelens:release/id")
    known = _published(address)
    if release not in known:
        raise InputError(
            f'{address}: SAELens has no release "{release}".{did_you_mean(release, known)} '
            "Its documentation lists them"
        )
    entry = known[release]
    ids = {str(one["id"]): one for one in entry["saes"]}
    if name not in ids:
        shown = ", ".join(list(ids)[:3])
        raise InputError(
            f'{address}: release {release} has no id "{name}".{did_you_mean(name, ids)} '
            f"Its {len(ids)} ids begin with {shown}"
        )
    one = ids[name]
    return Registered(
        release=release,
        id=name,
        repo=entry["repo_id"],
        path=str(one["path"]),
        model=str(entry.get("model") or ""),
        conversion=entry.get("conversion_func") or "",
        neuronpedia=str(one.get("neuronpedia") or ""),
        factor=one.get("norm_scaling_factor"),
        overrides=entry.get("config_overrides") or {},
        l0=float(one.get("l0") or 0),
    )


def neuronpedia_of(place: HubPlace) -> str:
    """Neuronpedia's id of a dictionary on the hub, as SAELens' list has it; else empty.

    Where several entries name one folder, the shortest id: the canonical one.
    """
    path = _list_path()
    if path is None:
        return ""
    ids = [
        str(one.get("neuronpedia") or "")
        for entry in _parsed(path).values()
        if entry["repo_id"] == place.repo
        for one in entry["saes"]
        if str(one["path"]).strip("/") == place.inside
    ]
    return min(filter(None, ids), key=len, default="")


def open_registered(
    address: str, readers: Mapping[str, ModuleType], asked: AskedDictionary | None = None
) -> tuple[Dictionary, str]:
    """The dictionary that `saelens:release/id` names, and the name of its format.

    Which model it is for the list says, whatever the file or its loader has, except where the
    release's own name does. Other facts it adds where the file does not have them.

    Args:
        readers: modules that read a format, by its name.
        asked: what the address says beside the name.

    Raises:
        InputError: it is not in the list, cannot be fetched, or no weights can hold it.
    """
    entry = look_up(address)
    _refuse_others(entry, address)
    name = _FORMATS.get(entry.conversion, "")
    given = replace(asked or AskedDictionary(), factor=entry.factor, overrides=entry.overrides)
    opened = _read(entry, readers[name], given) if name else _through_saelens(entry, address)
    opened.card = opened.card.model_copy(update=_added(opened.card, entry))
    return opened, name or f"SAELens' {entry.conversion}"


def _added(card: Card, entry: Registered) -> dict[str, Any]:
    """What the list changes in a card."""
    known = {"neuronpedia": entry.neuronpedia, "l0": entry.l0}
    added = {key: value for key, value in known.items() if value and not getattr(card, key)}
    if not entry.model or (card.model and same_model(card.model, entry.model)):
        return added
    if card.model and entry.conversion in _NAMED:
        return added
    if card.model:
        note = f"its file names the model {card.model}, SAELens' list {entry.model}"
        added["note"] = "; ".join(filter(None, (card.note, note)))
    return {**added, "model": entry.model}


def _refuse_others(entry: Registered, address: str) -> None:
    words = re.split(r"[/_-]", entry.path)
    inside = next((what for word, what in _OTHER_PATHS.items() if word in words), "")
    what = _OTHERS.get(entry.conversion) or (entry.conversion == "gemma_3" and inside)
    if what:
        raise InputError(
            f"{address}: {what}, which does not reconstruct the row it reads; give a sparse "
            "autoencoder"
        )


def _read(entry: Registered, reader: ModuleType, asked: AskedDictionary) -> Dictionary:
    inside = without_file(entry.path, [reader.WEIGHTS])
    names: tuple[str, ...] = reader.FILES
    if inside != entry.path:  # the list names the one file
        file = entry.path.removeprefix(f"{inside}/")
        names, asked = (file,), replace(asked, file=file, k=asked.k or int(entry.l0))
    folder = fetch(HubPlace(entry.repo, inside), names, [asked.file or reader.WEIGHTS])
    opened: Dictionary = reader.read(folder, asked)
    return opened


def _through_saelens(entry: Registered, address: str) -> Dictionary:
    """Let SAELens load it, and read what SAELens then writes."""
    from sae_lens import SAE

    try:
        loaded = SAE.from_pretrained(entry.release, entry.id, device="cpu")
    except Exception as error:
        raise InputError(
            f"{address}: SAELens cannot load it ({reason(error)}); check the name and the network"
        ) from None
    # Some of its loaders hand over transposed views, which safetensors does not write.
    for parameter in loaded.parameters():
        parameter.data = parameter.data.contiguous()
    with tempfile.TemporaryDirectory(prefix="lorascope-") as folder:
        loaded.save_model(folder)
        return saelens.read(Path(folder))


def _published(address: str) -> dict[str, Any]:
    path = _list_path()
    if path is None:
        raise InputError(
            f"{address}: needs SAELens, which is not installed: pip install 'lorascope[saelens]'"
        )
    return _parsed(path)


def _list_path() -> Path | None:
    spec = importlib.util.find_spec("sae_lens")
    known = spec is not None and spec.origin is not None
    return Path(str(spec.origin)).with_name("pretrained_saes.yaml") if known and spec else None


@cache
def _parsed(path: Path) -> dict[str, Any]:
    try:
        plain_file(path)
        # The C parser takes half a second where the other takes several.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return dict(yaml.load(path.read_text(encoding="utf-8"), Loader=loader))
    except Exception as error:
        raise InputError(
            f"{path}: SAELens' list cannot be read ({reason(error)}); install SAELens again"
        ) from None

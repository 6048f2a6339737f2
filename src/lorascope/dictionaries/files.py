"""One address for a dictionary: a folder, `hf://owner/repo/folder[@revision]`, or
`saelens:release/id`; at its end what the file leaves open, `?site=layers.5` or `?k=50`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from lorascope.dictionaries.addresses import (
    HUB,
    SCHEME,
    AskedDictionary,
    HubPlace,
    below,
    fetch,
    local_folder,
    nearest,
    said,
    without_file,
)
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.formats import (
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    llamascopium,
    qwen_scope,
    saelens,
    saelens_layout,
    sparsify,
)
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.limits import plain, reason
from lorascope.dictionaries.places import site_of
from lorascope.dictionaries.registry import neuronpedia_of, open_registered
from lorascope.errors import InputError, require_kind

# Llamascopium before SAELens: their weights have one name, and only its configuration differs.
FORMATS: dict[str, ModuleType] = {
    "llamascopium": llamascopium,
    "saelens": saelens,
    "gemma_scope": gemma_scope,
    "gemma_scope_2": gemma_scope_2,
    "llama_scope": llama_scope,
    "sparsify": sparsify,
    "dictionary_learning": dictionary_learning,
    "qwen_scope": qwen_scope,
}
# Files by which others' transcoders are known where no format is.
_OTHERS = (
    (re.compile(r"W_(enc|dec)_\d+\.safetensors"), "a cross-layer transcoder (CLT)"),
    (re.compile(r"params_layer_\d+\.safetensors"), "a cross-layer transcoder (CLT)"),
    (re.compile(r"layer_\d+\.safetensors"), "a set of transcoders"),
)


def open_dictionary(address: str | Path, site: str | None = None) -> Dictionary:
    """Open a dictionary, whatever its format; nothing in its files is executed.

    Args:
        address: a folder (or a file inside it), `hf://owner/repo/folder[@revision]`, or
            `saelens:release/id` as SAELens lists it; `?site=…` or `?k=…` at the end says what
            the file leaves open.
        site: what it reads, for a file that does not say; one that does is believed.

    Raises:
        InputError: nothing is there, no known format is, the file cannot be read as a dictionary
            of finite numbers, or it says another site than the end of the address.

    Examples:
        >>> ls.open_dictionary("runs/mine/dictionaries/layers.5-delta-mine-seed0").card.target
        'delta'
    """
    wanted = "a folder, hf://owner/repo/folder or saelens:release/id"
    require_kind(address, (str, Path), "the dictionary's address", wanted)
    require_kind(site, (str, type(None)), "the site", 'its name, "layers.5" for instance')
    whole = str(address)
    with _malformed(whole):
        text, asked = said(whole)
        if text.startswith(SCHEME):
            opened, name = open_registered(text, FORMATS, asked)
            return _checked(opened, whole, name, asked, site)
        place = HubPlace.parse(text, _weights()) if text.startswith(HUB) else None
        if place is not None:
            folder, asked = _fetched(place, text.partition("@")[0], asked)
            source = whole
        else:
            path = Path(text).expanduser()
            folder = local_folder(path, _weights())
            asked = _file(asked, path.name if path.is_file() else "")
            source = f"{path if asked.file else folder}{whole[len(text) :]}"
        opened, name = _read(folder, asked, text)
        if place is not None and not opened.card.neuronpedia:
            known = {"neuronpedia": neuronpedia_of(place)}
            opened.card = opened.card.model_copy(update=known)
        return _checked(opened, source, name, asked, site)


def save(dictionary: Dictionary, folder: str | Path) -> None:
    """Write a dictionary in SAELens layout with its card.

    Raises:
        InputError: `dictionary` is none, or `folder` no path.

    Examples:
        >>> import torch
        >>> rows = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
        >>> sae = ls.fit(ls.TopK(n_latents=32, k=4), rows, fitting=ls.Fitting(epochs=1, batch=64))
        >>> ls.save(sae, "saved")
        >>> ls.open_dictionary("saved")
        TopKDictionary(32 latents of 16 dimensions, saved)
    """
    made = "what fit or open_dictionary returned, then the folder"
    require_kind(dictionary, Dictionary, "the dictionary to save", made)
    require_kind(folder, (str, Path), "the folder to save it in", "a path")
    saelens_layout.write(dictionary, Path(folder))


def _fetched(place: HubPlace, text: str, asked: AskedDictionary) -> tuple[Path, AskedDictionary]:
    """The folder with a place's files, and the one file meant where the address ends in it."""
    asked = _file(asked, text.rsplit("/", 1)[-1])
    if asked.file:
        return fetch(place, [asked.file], [asked.file, qwen_scope.WEIGHTS]), asked
    readers = [reader for reader in FORMATS.values() if reader is not qwen_scope]
    names = sorted({name for reader in readers for name in reader.FILES})
    return fetch(place, names, _weights()), asked


def _file(asked: AskedDictionary, name: str) -> AskedDictionary:
    """`asked` with a file of those that lie side by side, one a dictionary."""
    is_one = without_file(name, [qwen_scope.WEIGHTS]) != name
    return replace(asked, file=name) if name and is_one else asked


def _read(folder: Path, asked: AskedDictionary, text: str) -> tuple[Dictionary, str]:
    for name, reader in FORMATS.items():
        if reader.recognises(folder) if not asked.file else reader is qwen_scope:
            return reader.read(folder, asked), name
    if conversion := llamascopium.how_to_convert(folder):
        raise InputError(f"{text}: {conversion}")
    names = sorted(p.name for p in folder.iterdir())
    other = next((what for kind, what in _OTHERS if any(map(kind.fullmatch, names))), "")
    if other:
        raise InputError(
            f"{text}: {other}, which does not reconstruct the row it reads; give a sparse "
            "autoencoder"
        )
    raise InputError(
        f"{text}: no dictionary of a known format ({', '.join(FORMATS)}); the folder holds "
        f"{', '.join(names[:6]) or 'nothing'}.{nearest('', below(folder, _weights()))}"
    )


@contextmanager
def _malformed(source: str) -> Iterator[None]:
    """Whatever a foreign file makes its reader do ends in one line naming the file."""
    try:
        yield
    except InputError as error:
        text = str(error)
        if text.isprintable():
            raise
        raise InputError(plain(text, len(text))) from None
    except Exception as error:
        raise InputError(
            f"{plain(source)}: cannot be read as a dictionary ({reason(error)}); fetch it again"
        ) from error


def _checked(
    opened: Dictionary, source: str, name: str, asked: AskedDictionary, site: str | None
) -> Dictionary:
    """Refuse numbers that are not finite, and let the card say what was opened."""
    for part, tensor in opened.named_buffers():
        broken = int((~tensor.isfinite()).sum())
        if broken:
            raise InputError(
                f"{source}: {broken} of {tensor.numel()} numbers of its {part.replace('_', ' ')} "
                "are NaN or infinite; fetch it again, or give another dictionary"
            )
    card = opened.card
    if card.d_model not in (0, opened.d_model):
        raise InputError(
            f"{source}: its card says d_model {card.d_model}, and its tensors are "
            f"{opened.d_model} wide; the two do not belong together; fetch both again"
        )
    if asked.k and getattr(opened, "k", None) != asked.k:
        raise InputError(
            f"{source}: k is {getattr(opened, 'k', 'not known')} there, and its address says "
            f"{asked.k}; leave ?k= away, or mend it"
        )
    notes = [card.note]
    if isinstance(opened, JumpReluDictionary):
        notes += [line for line in [_untrained(opened)] if line not in card.note]
    known = {"source": source, "format": name, "d_model": opened.d_model}
    found = card.model_copy(update={**known, "note": "; ".join(filter(None, notes))})
    opened.card = found.placed(asked.site and site_of(asked.site), site and site_of(site))
    return opened


def _untrained(dictionary: JumpReluDictionary) -> str:
    """The note on thresholds that let every positive pre-activation pass."""
    below_zero = int((dictionary.threshold < 0).sum())
    if not below_zero:
        return ""
    return (
        f"{below_zero} of {dictionary.n_latents} thresholds lie below 0, as BatchTopK's do until "
        "they are first trained: every positive pre-activation passes, so more latents are active "
        "than it was made for"
    )


def _weights() -> list[str]:
    return [reader.WEIGHTS for reader in FORMATS.values()]

"""One address for a dictionary: a folder, `hf://owner/repo/folder[@revision]`, or
`saelens:release/id`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from lorascope.dictionaries.addresses import HUB, HubPlace, below, fetch, local_folder, nearest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.formats import (
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    saelens,
    saelens_layout,
    sparsify,
)
from lorascope.dictionaries.registry import SCHEME, neuronpedia_of, open_registered
from lorascope.errors import InputError

FORMATS: dict[str, ModuleType] = {
    "saelens": saelens,
    "gemma_scope": gemma_scope,
    "gemma_scope_2": gemma_scope_2,
    "llama_scope": llama_scope,
    "sparsify": sparsify,
    "dictionary_learning": dictionary_learning,
}


def open_dictionary(address: str | Path) -> Dictionary:
    """Open a dictionary, whatever its format; nothing in its files is executed.

    Args:
        address: a folder (or a file inside it), `hf://owner/repo/folder[@revision]`, or
            `saelens:release/id` as SAELens lists it.

    Raises:
        InputError: nothing is there, no known format is, or the file cannot be read as a
            dictionary of finite numbers.
    """
    text = str(address)
    if text.startswith(SCHEME):
        with _malformed(text):
            opened, name = open_registered(text, FORMATS)
        return _checked(opened, text, name)
    place = HubPlace.parse(text, _weights()) if text.startswith(HUB) else None
    if place is not None:
        names = [name for reader in FORMATS.values() for name in reader.FILES]
        folder, source = fetch(place, names, _weights()), text
    else:
        folder = local_folder(Path(text), _weights())
        source = str(folder)
    for name, reader in FORMATS.items():
        if reader.recognises(folder):
            with _malformed(source):
                found: Dictionary = reader.read(folder)
            if place is not None and not found.card.neuronpedia:
                known = {"neuronpedia": neuronpedia_of(place)}
                found.card = found.card.model_copy(update=known)
            return _checked(found, source, name)
    names = sorted(p.name for p in folder.iterdir())
    raise InputError(
        f"{text}: no dictionary of a known format ({', '.join(FORMATS)}); the folder holds "
        f"{', '.join(names[:6]) or 'nothing'}.{nearest('', below(folder, _weights()))}"
    )


def save(dictionary: Dictionary, folder: str | Path) -> None:
    """Write a dictionary in SAELens layout with its card."""
    saelens_layout.write(dictionary, Path(folder))


@contextmanager
def _malformed(source: str) -> Iterator[None]:
    """Configurations are others' files: a value of the wrong kind is theirs to mend."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise InputError(
            f"{source}: its configuration holds something of the wrong kind ({error}); "
            "fetch it again"
        ) from error


def _checked(opened: Dictionary, source: str, name: str) -> Dictionary:
    """Refuse numbers that are not finite, and let the card say what was opened."""
    for part, tensor in opened.named_buffers():
        broken = int((~tensor.isfinite()).sum())
        if broken:
            raise InputError(
                f"{source}: {broken} of {tensor.numel()} numbers of its {part.replace('_', ' ')} "
                "are NaN or infinite; fetch it again, or give another dictionary"
            )
    opened.card = opened.card.model_copy(
        update={"source": source, "format": name, "d_model": opened.d_model}
    )
    return opened


def _weights() -> list[str]:
    return [reader.WEIGHTS for reader in FORMATS.values()]

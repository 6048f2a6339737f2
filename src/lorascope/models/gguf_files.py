"""Models as llama.cpp keeps them: one GGUF file with weights, configuration and tokenizer.

transformers reads them, each tensor back into plain numbers, with the help of the package gguf.
Nothing here waits for either.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lorascope.errors import InputError
from lorascope.foreign import first_line

ENDING = ".gguf"
_BEGINNING = b"GGUF"
_SPLIT = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
# Weights as transformers' own checkpoints hold them; with these in a folder it is no GGUF folder.
_OTHERS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class GgufFile:
    """Where a model in a GGUF file lies.

    Attributes:
        source: the folder, or the hub's id.
        file: the file's name in it.
    """

    source: str
    file: str

    @property
    def path(self) -> Path | None:
        """The file on this machine; None of one on the hub."""
        found = Path(self.source) / self.file
        return found if found.is_file() else None


@dataclass(frozen=True)
class Quantisation:
    """How a GGUF file keeps its numbers.

    Attributes:
        types: {type's name: how many tensors}, the commonest first.
    """

    types: dict[str, int]

    def __str__(self) -> str:
        return "GGUF: " + ", ".join(
            f"{name} ({count} tensors)" for name, count in self.types.items()
        )

    @property
    def is_exact(self) -> bool:
        """Whether no tensor is coded in fewer than 16 bits a number."""
        return all(name in ("F64", "F32", "F16", "BF16") for name in self.types)


def gguf_of(model: str) -> GgufFile | None:
    """The GGUF file that an address means; None where it means another kind of model.

    Args:
        model: a file, a folder with one such file and no other weights, or `org/repo/name.gguf` on
            the hub.

    Raises:
        InputError: there is no such file, there are several, or it is a part of one that was split.
    """
    place = Path(model).expanduser()
    if place.is_dir():
        return _in_folder(model, place)
    if not model.endswith(ENDING):
        return None
    if place.is_file():
        with place.open("rb") as file:
            begins = file.read(len(_BEGINNING))
        if begins != _BEGINNING:
            raise InputError(f'model "{model}" is no GGUF file: fetch it again')
        return _whole(model, GgufFile(str(place.parent), place.name))
    if model.startswith((".", "/", "~")) or model.count("/") < 2:
        raise InputError(f'model file "{model}" does not exist: check the path')
    organisation, repository, inner = model.split("/", 2)
    return _whole(model, GgufFile(f"{organisation}/{repository}", inner))


def require_reader(model: str) -> None:
    """Refuse a GGUF file where nothing can read it.

    Raises:
        InputError: the package gguf is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            f'model "{model}" is a GGUF file and the package gguf is not installed: '
            "pip install 'lorascope[gguf]', or give the model as its authors published it"
        )


def quantisation(path: Path) -> Quantisation:
    """How a file keeps its numbers, from its header.

    Raises:
        InputError: it cannot be read, or gguf is not installed.
    """
    require_reader(str(path))
    seen = path.stat()
    return _read(str(path.resolve()), seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: str, size: int, changed: int) -> Quantisation:
    del size, changed
    from lorascope.models.gguf_headers import WordlessReader

    try:
        reader = WordlessReader(path)
    except Exception as error:
        raise InputError(
            f"{path}: its header cannot be read ({first_line(error)}); fetch the file again"
        ) from None
    kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return Quantisation(dict(kinds.most_common()))


def _in_folder(model: str, folder: Path) -> GgufFile | None:
    files = sorted(file.name for file in folder.glob(f"*{ENDING}"))
    if not files or any(next(folder.glob(pattern), None) for pattern in _OTHERS):
        return None
    if len(files) > 1:
        listed = ", ".join(files[:4]) + (", …" if len(files) > 4 else "")
        raise InputError(
            f'model folder "{model}" holds {len(files)} GGUF files ({listed}): '
            "give the one you mean"
        )
    return gguf_of(str(folder / files[0]))


def _whole(model: str, found: GgufFile) -> GgufFile:
    parts = _SPLIT.search(found.file)
    if parts is not None and int(parts[1]) > 1:
        raise InputError(
            f'model "{model}" is one of {int(parts[1])} parts of a GGUF file: join them with '
            "llama-gguf-split --merge and give the whole"
        )
    return found

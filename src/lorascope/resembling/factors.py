"""The updates of several LoRA adapters as factors, read from their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lorascope.checking.configured import of_parameters
from lorascope.checking.findings import listed
from lorascope.checking.folders import SAFE
from lorascope.checking.reading import FilesRead, read_adapter
from lorascope.checking.spectra import scale_of
from lorascope.checking.tensors import bare, open_weights
from lorascope.errors import InputError
from lorascope.models.adapter_config import LORA


@dataclass(frozen=True)
class Factored:
    """One adapter's updates, scale · B · A.

    Attributes:
        name: unique among those compared.
        path: as it was asked for.
        base: the base model that its configuration names; empty where it names none.
        modules: {path in the bare model: (B [out, r] times the scale, A [r, in])}, float32.
        left_out: what it changes beside these.
    """

    name: str
    path: str
    base: str
    modules: Mapping[str, tuple[Float[Tensor, "out r"], Float[Tensor, "r in"]]]
    left_out: tuple[str, ...]

    @property
    def rank(self) -> int:
        """The largest of its modules."""
        return max(A.shape[0] for _, A in self.modules.values())


def read_factors(paths: Sequence[str]) -> list[Factored]:
    """Every adapter, in order.

    Raises:
        InputError: fewer than two; one is missing, damaged, given twice, no plain LoRA, or zero.
    """
    if len(paths) < 2:
        raise InputError(f"{len(paths)} adapter: give two or more of one base model")
    reads = [read_adapter(path) for path in paths]
    folders = [read.folder.resolve() for read in reads]
    for i, folder in enumerate(folders):
        if folder in folders[:i]:
            raise InputError(f'adapter "{paths[i]}" is given twice: leave one out')
    names = short_names(folders)
    return [_factored(name, read) for name, read in zip(names, reads, strict=True)]


def short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell each from the others."""
    found = []
    for folder in folders:
        parts = folder.parts
        for length in range(1, len(parts) + 1):
            end = parts[-length:]
            if sum(other.parts[-length:] == end for other in folders) == 1:
                break
        found.append("/".join(end))
    return found


def _factored(name: str, read: FilesRead) -> Factored:
    if read.kind != LORA or read.fields.get("use_dora"):
        kind = "DoRA" if read.kind == LORA else read.kind
        raise InputError(
            f'adapter "{name}" is {kind}, whose update is not scale · B · A: compare audits of '
            "it instead (lorascope audit, then lorascope compare RUN RUN)"
        )
    errors = sorted({finding.rule for finding in read.findings if finding.level == "error"})
    if errors:
        raise InputError(
            f'adapter "{name}": its files have errors ({", ".join(errors)}): see '
            f"lorascope check {read.path}"
        )
    found: dict[str, tuple[Tensor, Tensor]] = {}
    left_out = []
    with open_weights(name, read.folder / SAFE) as file:
        contents = file.contents()
        for path, module in contents.modules.items():
            if of_parameters(read.fields, path) or not module.is_pair:
                left_out.append(path)
                continue
            B, A = (file.read(module.parts[part]).float() for part in ("B", "A"))
            scale = scale_of(read.fields, path, module.shape[1])
            if "bias" in module.parts:
                left_out.append(f"{path} (bias)")
            if scale and bool(B.any()) and bool(A.any()):
                found[path] = (scale * B, A)
    left_out += [bare(one.key) for one in contents.others]
    if not found:
        raise InputError(
            f'adapter "{name}" has no update of a linear map that is not zero'
            + (f" (it changes {listed(left_out)})" if left_out else "")
        )
    return Factored(name, read.path, read.base or "", found, tuple(left_out))

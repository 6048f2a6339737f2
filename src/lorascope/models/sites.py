"""Sites: named places in the residual stream. `layers.12` is the output of block 12, from 0."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn

from lorascope.errors import InputError

_BLOCK_LISTS = (
    "language_model.layers",
    "language_model.model.layers",
    "model.layers",
    "transformer.h",
    "gpt_neox.layers",
    "decoder.layers",
    "transformer.blocks",
    "layers",
    "h",
)
_SITE = re.compile(r"(?:(?:[A-Za-z_]\w*\.)*(?:layers|h|blocks)\.)?(\d+)(?:\.hook_resid_post)?")
# Where the blocks of a model were found; looked up again where no list stands there any more.
_KNOWN: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
_FORMS = "write layers.5, 5, model.layers.5, transformer.h.5 or blocks.5.hook_resid_post"


@dataclass(frozen=True, order=True)
class Site:
    """The output of one block, `index` counted from 0; sites sort by depth."""

    index: int

    @property
    def name(self) -> str:
        """The site's one spelling, `layers.12`."""
        return f"layers.{self.index}"

    def __str__(self) -> str:
        return self.name


def parse_site(text: str) -> Site:
    """The site that a name means, whichever library's spelling it uses.

    Accepts `layers.5`, `5`, `model.layers.5`, `transformer.h.5`, `gpt_neox.layers.5` and
    TransformerLens' `blocks.5.hook_resid_post`. All of them are the output of block 5.

    Raises:
        InputError: the text is no block output.
    """
    match = _SITE.fullmatch(text.strip())
    if match is None:
        raise InputError(f'site "{text}" is not the output of a block: {_FORMS}')
    return Site(int(match[1]))


def block_list(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks of a causal language model, in order of depth.

    Found by the end of its path, so that wrapping the model (PEFT puts `base_model.model.` in
    front) changes nothing. For an unknown architecture it is the longest list of blocks of one
    class that does not lie inside another list (experts do).

    Raises:
        InputError: the model has no such list.
    """
    return block_list_at(model)[1]


def block_list_at(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The path of the decoder blocks in the model, and the blocks; raises as `block_list`."""
    # Adapters put thousands of modules on a model, and each pass through it asks.
    path = _KNOWN.get(model)
    found = None if path is None else _list_at(model, path)
    if path is None or found is None:
        path, found = _searched(model)
        _KNOWN[model] = path
    return path, found


def _list_at(model: nn.Module, path: str) -> nn.ModuleList | None:
    """The list of modules at a path; None where something else stands there now."""
    try:
        found = model.get_submodule(path)
    except AttributeError:
        return None
    return found if isinstance(found, nn.ModuleList) and len(found) else None


def _searched(model: nn.Module) -> tuple[str, nn.ModuleList]:
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 0
    }
    for ending in _BLOCK_LISTS:
        for path, module in lists.items():
            if path == ending or path.endswith(f".{ending}"):
                return path, module
    candidates = {
        path: module
        for path, module in lists.items()
        if len({type(block) for block in module}) == 1
        and not any(path.startswith(f"{other}.") for other in lists)
    }
    if not candidates:
        raise InputError(
            f"{type(model).__name__} has no list of decoder blocks: "
            "give a causal language model made of transformer blocks"
        )
    return max(candidates.items(), key=lambda candidate: len(candidate[1]))


def resolve_sites(
    model_or_n_blocks: nn.Module | int, names: Iterable[str | int | Site] | str
) -> list[Site]:
    """The named sites, sorted by depth.

    Args:
        model_or_n_blocks: the model, or how many blocks it has.
        names: names in any spelling of `parse_site`, block numbers, or sites; a lone name is one.

    Raises:
        InputError: no site, an unknown spelling, a block the model lacks, or one site twice.
    """
    n_blocks = (
        model_or_n_blocks
        if isinstance(model_or_n_blocks, int)
        else len(block_list(model_or_n_blocks))
    )
    sites = list(_parsed([names] if isinstance(names, str) else names))
    if not sites:
        raise InputError(f"no site given: {_FORMS}")
    for site in sites:
        if not 0 <= site.index < n_blocks:
            raise InputError(
                f'site "{site}" does not exist: the model has {n_blocks} blocks, '
                f"so sites go from layers.0 to layers.{n_blocks - 1}"
            )
    repeated = sorted({site for site in sites if sites.count(site) > 1})
    if repeated:
        raise InputError(f'site "{repeated[0]}" is given more than once: name each site once')
    return sorted(sites)


def _parsed(names: Iterable[str | int | Site]) -> Iterator[Site]:
    for name in names:
        yield name if isinstance(name, Site) else parse_site(str(name))

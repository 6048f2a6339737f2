"""A subject of an evaluation, opened: its dictionaries, its adapter, and its conditions.

Conditions are named as everywhere in the package: *original* is the bare model, *spliced* has the
dictionaries in its stream, *adapted* has adapter and dictionaries, *unspliced* the adapter alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorascope.activations.tokens import TokenBatch
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError
from lorascope.fits.card import open_fitted, read_card
from lorascope.fits.conditions import ADAPTED, ORIGINAL, SPLICED, UNSPLICED
from lorascope.fits.wrapper import with_adapter
from lorascope.models.adapter_files import locate
from lorascope.models.hooks import run_until
from lorascope.models.sites import Site, parse_site
from lorascope.outputs.conditions import Condition
from lorascope.outputs.splicing import Placed, place, spliced
from lorascope.runs import read_json
from lorascope.studies.evaluate.deltas import DeltaSplice
from lorascope.studies.evaluate.settings import Subject

Rows = Float[Tensor, "*rows d"]
# What stands at a site instead of the stream.
Put = Mapping[Site, Callable[[Rows], Rows]]


@dataclass(frozen=True, eq=False)
class OpenedSubject:
    """A subject on its model.

    Attributes:
        module: the model, under PEFT where there is an adapter.
        dictionaries: as they were made, by site.
        standing: as they stand with the adapter; a fit may have changed them.
        reseeded: of another seed.
        special_ids: tokens that keep their stream.
        adapter: what the adapter is called; empty without one.
        fitted: the adapter was fitted around the dictionaries, to bring the original back.
        delta: the dictionary stands for what the adapter adds.
    """

    name: str
    module: nn.Module
    tokenizer: Any
    dictionaries: Placed = field(default_factory=dict)
    standing: Placed = field(default_factory=dict)
    reseeded: Placed = field(default_factory=dict)
    special_ids: tuple[int, ...] = ()
    adapter: str = ""
    fitted: bool = False
    delta: bool = False

    @property
    def conditions(self) -> tuple[str, ...]:
        """The ways of running that there are, the original first."""
        found = [ORIGINAL]
        if self.dictionaries and not self.delta:
            found.append(SPLICED)
        if self.adapter:
            found.append(UNSPLICED)
            if self.dictionaries:
                found.append(ADAPTED)
        return tuple(found)

    @property
    def sides(self) -> tuple[str, ...]:
        """The conditions with dictionaries: without the adapter, then with it."""
        return tuple(one for one in self.conditions if one in (SPLICED, ADAPTED))

    def reference(self, side: str) -> str:
        """What a condition with dictionaries is held against: the same without them.

        A fit is to bring the original back, so its reference is the original too.
        """
        return ORIGINAL if side == SPLICED or self.fitted else UNSPLICED

    def condition(self, name: str) -> Condition:
        """How the model runs under a condition; ValueError for one that there is not."""
        if name not in self.conditions:
            raise ValueError(f"{self.name} has no {name}")
        if name == ORIGINAL:
            return self._without
        if name == UNSPLICED:
            return nullcontext
        chosen = self.standing if name == ADAPTED else self.dictionaries
        return self.put(chosen, adapter=name == ADAPTED)

    def put(self, what: Put, *, adapter: bool) -> Condition:
        """A condition with something else than the dictionaries at their sites.

        Of a delta subject it stands for what the adapter adds, and `adapter` must be true.

        Args:
            what: {site: reconstruction of rows}, at every site of the dictionaries.
        """
        return partial(self._put, what, adapter)

    @contextmanager
    def _put(self, what: Put, adapter: bool) -> Iterator[None]:
        with ExitStack() as stack:
            if self.delta:
                splice = DeltaSplice(self.module, self.special_ids, self._without)
                stack.enter_context(splice.on(*next(iter(what.items()))))
                yield
                return
            if not adapter:
                stack.enter_context(self._without())
            arguments: Any = {"special_ids": self.special_ids}
            splice_ = stack.enter_context(spliced(self.module, self.dictionaries, **arguments))
            splice_.standing.update(what)
            yield

    @contextmanager
    def _without(self) -> Iterator[None]:
        """Within the `with`, the adapter is off."""
        if not isinstance(self.module, PeftModel):
            yield
            return
        self.module.base_model.disable_adapter_layers()
        try:
            yield
        finally:
            self.module.base_model.enable_adapter_layers()

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        found: torch.device = self.module.get_input_embeddings().weight.device  # type: ignore[operator]
        return found

    def streams(self, batch: TokenBatch, *, adapter: bool) -> dict[Site, Float[Tensor, "b s d"]]:
        """What the dictionaries read of a batch, with nothing spliced; float32.

        Of a delta subject, what the adapter adds.
        """
        sites = list(self.dictionaries)
        ids, mask = batch.ids.to(self.device), batch.attended.long().to(self.device)
        off: AbstractContextManager[Any] = nullcontext() if adapter else self._without()
        with off:
            found = run_until(self.module, sites, ids, mask)
        found = {site: rows.float() for site, rows in found.items()}
        if self.delta:
            with self._without():
                base = run_until(self.module, sites, ids, mask)
            found = {site: rows - base[site].float() for site, rows in found.items()}
        return found

    @property
    def read_with(self) -> tuple[bool, ...]:
        """With which states of the adapter streams are read: off, then on where it matters."""
        if self.delta:
            return (True,)
        return (False, True) if self.adapter else (False,)

    def dictionary(self, site: Site, *, adapter: bool) -> Dictionary:
        """What stands at a site."""
        return (self.standing if adapter else self.dictionaries)[site]


@contextmanager
def opened(
    name: str,
    subject: Subject,
    module: PreTrainedModel,
    tokenizer: Any,
    *,
    model: str = "",
    force: bool = False,
) -> Iterator[OpenedSubject]:
    """A subject on a bare model; the adapter goes again at the end.

    Raises:
        InputError: a dictionary or the adapter is not there or does not fit.
    """
    addresses = {parse_site(site): address for site, address in subject.dictionaries.items()}
    if subject.fitted and not addresses:
        addresses = around(Path(subject.fitted))
    placed: Placed = {}
    if addresses:
        given = {site: open_dictionary(address) for site, address in addresses.items()}
        placed = place(module, given, model=model, force=force)
    reseeded = {parse_site(s): open_dictionary(a) for s, a in subject.reseeded.items()}
    if reseeded:
        reseeded = place(module, reseeded, model=model, force=force)
    for one in (*placed.values(), *reseeded.values()):
        one.to(next(module.parameters()).device)
    special = tuple(tokenizer.all_special_ids)
    found = OpenedSubject(name, module, tokenizer, placed, placed, reseeded, special)
    dressed: nn.Module = module
    try:
        if subject.fitted:
            folder = Path(subject.fitted)
            fit = open_fitted(folder, module, placed, force=force)
            dressed = fit.module
            found = OpenedSubject(
                name,
                dressed,
                tokenizer,
                placed,
                fit.dictionaries,
                reseeded,
                read_card(folder).special_ids,
                folder.name,
                fitted=True,
            )
        elif subject.adapter:
            dressed, called = _fine_tuned(module, subject.adapter)
            rest = (placed, placed, reseeded, special, called)
            found = OpenedSubject(name, dressed, tokenizer, *rest, delta=subject.delta)
        yield found
    finally:
        if isinstance(dressed, PeftModel):
            dressed.unload()


def _fine_tuned(module: PreTrainedModel, address: str) -> tuple[nn.Module, str]:
    folder = locate("adapter", address)
    if folder is None:
        raise InputError(
            f"{address}: a whole fine-tuned model, not an adapter; evaluate it as `model`"
        )
    return with_adapter(module, folder), folder.name


def around(folder: Path) -> dict[Site, str]:
    """{site: address} of the dictionaries that a fit of an adapt run was made around.

    Raises:
        InputError: the folder does not lie in its run any more; name the dictionaries then.
    """
    facts, run = folder / "fit.json", folder.parent.parent
    if not facts.is_file():
        raise InputError(
            f"{folder}: no fit of an adapt run (there is no fit.json); give its folder below "
            "fits/, or name the dictionaries with --dictionary site=address"
        )
    record = read_json(facts)
    found: dict[Site, str] = {}
    for site, name in zip(record["sites"], record["dictionaries"], strict=True):
        own = run / "dictionaries" / name
        address = str(own) if _holds_weights(own) else _brought(run, name)
        if not address:
            raise InputError(
                f"{folder}: the dictionary {name} is no longer in {run / 'dictionaries'}; name it "
                f"with --dictionary {site}=address"
            )
        found[parse_site(site)] = address
    return found


def _holds_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _brought(run: Path, name: str) -> str:
    from lorascope.config import read_yaml

    path = run / "study.yaml"
    if not path.is_file():
        return ""
    known = read_yaml(path).get("dictionaries", {}).get("bring", {})
    return str(known.get(name, {}).get("address", ""))

"""What an adapt study will cost, worked out without weights, and refused where it cannot fit."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.activations.settings import Capture
from lorascope.dictionaries.addresses import SCHEME
from lorascope.dictionaries.registry import look_up
from lorascope.errors import InputError
from lorascope.models.stored import computing_dtype
from lorascope.studies.adapt import costs
from lorascope.studies.adapt.cells import FitGrid, asked
from lorascope.studies.adapt.state import require_held_out
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.training.dictionaries import product_dtype
from lorascope.workflows.cost import Cost, CostPart
from lorascope.workflows.gpus import on_gpus
from lorascope.workflows.sizes import OfTexts, SizedModel, StudySizes, base_of, sizes_of
from lorascope.workflows.speed import device_of

__all__ = ["AdaptPlan", "plan_adapt"]


@dataclass(frozen=True, kw_only=True)
class AdaptPlan(Cost):
    """The size of an adapt study.

    Attributes:
        parameters: of the base model.
        training_tokens, held_out_tokens: that count; the first train dictionaries and fits.
        dictionaries: how many are trained, and how many brought along.
        fits: how many.
        fit_tokens: tokens compared over all fits.
    """

    parameters: int
    d_model: int
    blocks: int
    documents: int
    training_tokens: int
    held_out_tokens: int
    dictionaries: tuple[int, int]
    fits: int
    fit_tokens: int

    def sizes(self) -> list[tuple[str, str]]:
        """(what, how much) of the study's own sizes."""
        trained, brought = self.dictionaries
        return [
            ("model", f"{self.parameters:,} parameters, {self.blocks} blocks of {self.d_model}"),
            ("documents", f"{self.documents:,}{self.about}"),
            (
                "tokens",
                f"{self.training_tokens:,} to train and fit on, {self.held_out_tokens:,} held "
                f"out{self.about}",
            ),
            ("dictionaries", f"{trained} trained here, {brought} brought along"),
            ("fits", f"{self.fits}, {self.fit_tokens:,} tokens in all"),
        ]

    def prices(self) -> list[tuple[str, str]]:
        """As any study's, and the time on cards one would rent."""
        rented = [(f"on one {card}", what) for card, what in on_gpus(self.parts)]
        return [*super().prices(), *rented]


def plan_adapt(study: AdaptStudy, *, estimates: bool = True) -> AdaptPlan:
    """Tokens, fits, disk, memory and arithmetic of a study, from configuration and texts alone.

    Args:
        estimates: where a well-known model or dataset is not at hand, go by what is published
            about it and say so.

    Raises:
        InputError: model, sites, dictionaries, blocks or texts do not fit the study, or a budget
            is smaller than one step.
    """
    sized = _sized(study)
    base = base_of(sized, estimates=estimates)
    what = asked(study, base.shape.blocks)
    _require_blocks(what, base.shape.blocks)
    for one in what.dictionaries.values():
        if one.address.startswith(SCHEME):
            look_up(one.address)
    sizes = sizes_of(sized, base, estimates=estimates)
    held_out = min(sizes.held_out_tokens, study.measure_tokens)
    require_held_out(sizes.held_out_documents, held_out)
    _require_steps(study, sizes)
    known = costs.widths(what, base.shape.d_model)
    guessed = f"latents of {', '.join(known.guessed)}: 32,768" if known.guessed else ""
    trained = sum(not one.address for one in what.dictionaries.values())
    return AdaptPlan(
        parameters=base.shape.parameters,
        d_model=base.shape.d_model,
        blocks=base.shape.blocks,
        documents=sizes.documents,
        training_tokens=sizes.probe_tokens,
        held_out_tokens=held_out,
        dictionaries=(trained, len(what.dictionaries) - trained),
        fits=len(what.fits),
        fit_tokens=len(what.fits) * study.fit.tokens,
        disk=costs.disk(study, base.shape, what, known.latents),
        parts=_parts(study, base, what, known.latents),
        device="several devices" if study.device_map else device_of(study.device),
        notes=(*sizes.notes, guessed) if guessed else sizes.notes,
    )


def _sized(study: AdaptStudy) -> OfTexts:
    """What is counted of model and texts, as for an audit."""
    return OfTexts(
        model=study.model,
        revision=study.revision,
        texts=study.texts,
        capture=Capture(context=study.context),
        seed=study.seed,
    )


def _parts(
    study: AdaptStudy, base: SizedModel, what: FitGrid, latents: dict[str, int]
) -> tuple[CostPart, ...]:
    device, shape = device_of(study.device), base.shape
    weights = computing_dtype(study.dtype)
    products = product_dtype(study.fit.products, device)
    found = []
    if study.dictionaries.train is not None:
        own = product_dtype("auto", device)
        found.append(costs.dictionary_training(study, shape, what, device, own))
    if what.fits:
        found.append(costs.fits(study, shape, what.fits, latents, weights, products))
    if study.experiments.times is not None:
        found.append(costs.times(study, shape, what, device, weights, products))
    return tuple(found)


def _require_blocks(what: FitGrid, n_blocks: int) -> None:
    """Refuse fits that would have no block to adapt, before any weight is loaded."""
    for cell in what.fits:
        last = int(cell.sites[0].rpartition(".")[2]) == n_blocks - 1
        if last and cell.blocks in ("after", "next"):
            raise InputError(
                f"no block to adapt: no block comes after {cell.sites[0]}; give another site, or "
                "fit.lora.blocks=all"
            )
        for number in cell.blocks if isinstance(cell.blocks, tuple) else ():
            if not 0 <= number < n_blocks:
                raise InputError(
                    f"fit.lora.blocks: block {number} does not exist: the model has {n_blocks}, 0 "
                    f"to {n_blocks - 1}"
                )


def _require_steps(study: AdaptStudy, sizes: StudySizes) -> None:
    """Refuse a budget that certainly does not reach for one step."""
    each = study.fit.batch * study.fit.accumulate
    budgets = [study.fit.tokens]
    if study.experiments.times is not None:
        budgets += [study.experiments.times.end_to_end_tokens]
        budgets += [study.experiments.times.fit_tokens or study.fit.tokens]
    for budget in budgets:
        if budget < each:
            raise InputError(
                f"a budget of {budget} tokens is smaller than one step of {each} windows; give a "
                "larger budget, or a smaller fit.batch"
            )
    train = study.dictionaries.train
    if train is not None and sizes.probe_tokens < train.batch:
        raise InputError(
            f"the texts leave {sizes.probe_tokens:,} tokens to train dictionaries on; batches of "
            f"{train.batch} need more: give more text, or a smaller dictionaries.train.batch"
        )

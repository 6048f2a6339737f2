"""Further measurements of the reference's fits: streams behind the site, and steering."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from lorascope.activations.streamed import StreamedRows
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.fits.card import open_fitted
from lorascope.fits.conditions import ADAPTED, SPLICED, UNSPLICED, conditions_of
from lorascope.fits.preparing import still
from lorascope.fits.settings import Learning
from lorascope.measures.firing import firing
from lorascope.measures.steering import (
    best_alpha,
    choose_texts,
    firing_texts,
    steer,
    steering_estimates,
    text_changes,
)
from lorascope.measures.stream_distances import distance_estimates, stream_distances
from lorascope.models.sites import Site, parse_site
from lorascope.outputs.conditions import Condition
from lorascope.results import Estimate
from lorascope.runs import read_json, write_json
from lorascope.stages import Stage, Work, stage
from lorascope.studies.adapt.cells import FitCell
from lorascope.studies.adapt.dictionaries import L0_ROWS
from lorascope.studies.adapt.dictionaries import at as dictionary_at
from lorascope.studies.adapt.fits import at as fit_at
from lorascope.studies.adapt.fits import place_of
from lorascope.studies.adapt.state import TEXTS, Adapted
from lorascope.studies.adapt.study import AdaptStudy, SteeredLatents
from lorascope.training.dictionaries import product_dtype
from lorascope.workflows.measured import Measured

STREAMS, STEERING = "measures/streams", "measures/steering"
FACTS = "facts.json"
# Latents that fire in fewer texts have too few to steer on, in more no silent ones to compare.
_FIRES_IN = (0.02, 0.2)
# What streams read of the study.
_STREAM_SETTINGS = ("fit.products", "fit.splice_special", "fit.before_thresholds")


@stage(version=2, title="measuring streams")
def measure_streams(work: Work, *, study: AdaptStudy, cell: FitCell) -> None:
    """How far the streams behind the site are from the original's, with a fit and without."""
    state: Adapted = work.state
    site = parse_site(cell.sites[0])
    with opened(work, cell, {site.name: state.open(cell.dictionaries[0])}) as conditions:
        distances = stream_distances(
            state.module,
            state.tokenizer,
            state.held_out,
            conditions,
            site,
            products=_products(state, study.fit),
            keep_special=study.fit.splice_special,
        )
        warnings = _drift(state, cell, conditions) if study.fit.before_thresholds else []
    Measured(distance_estimates(distances, place_of(cell)), warnings).write(work.folder)


@stage(version=2, title="steering")
def steer_latents(work: Work, *, wanted: SteeredLatents, cell: FitCell) -> None:
    """Steer by latents of the reference, without a fit and with it."""
    state: Adapted = work.state
    site = parse_site(cell.sites[0])
    dictionary = state.open(cell.dictionaries[0])
    found, facts = Measured(), []
    with opened(work, cell, {site.name: dictionary}) as conditions:
        firing = _firing(state, conditions, site, dictionary)
        latents = wanted.latents or chosen_latents(firing, dictionary, wanted.count)
        with work.reporter.bar("steering", len(latents), "latents") as advance:
            for latent in latents:
                facts += _steer(state, cell, dictionary, latent, firing, conditions, wanted, found)
                advance(1)
    found.write(work.folder)
    write_json(work.folder / FACTS, facts)


def stages(state: Adapted) -> Iterator[Stage]:
    """Looks at LoRA around the reference: `measures/streams-s<seed>` of every seed's, and
    `measures/steering` of the first's, where the study asks for them."""
    study, cells = state.study, reference_fits(state)
    wanted = study.experiments
    for cell in cells if wanted.distances else ():
        arguments = {"study": study.only(*_STREAM_SETTINGS), "cell": cell}
        yield Stage(streams_at(cell), measure_streams, arguments, _read_by(cell))
    if wanted.steering is not None:
        steering = {"wanted": wanted.steering, "cell": cells[0]}
        yield Stage(STEERING, steer_latents, steering, _read_by(cells[0]))


def reference_fits(state: Adapted) -> list[FitCell]:
    """LoRA around the reference, a fit a seed."""
    return state.asked.cells.get("reference", [])


def streams_at(cell: FitCell) -> str:
    """The stage of the streams with a fit."""
    return f"{STREAMS}-s{cell.seed}"


def read_looks(state: Adapted) -> Measured:
    """What these stages found."""
    wanted, found = state.study.experiments, Measured()
    for cell in reference_fits(state) if wanted.distances else ():
        found.add(Measured.read(state.folder / streams_at(cell)))
    if wanted.steering is not None:
        found.add(Measured.read(state.folder / STEERING))
    return found


def steering_facts(state: Adapted) -> list[dict[str, Any]]:
    """Latents that were steered, with the strengths chosen."""
    if state.study.experiments.steering is None:
        return []
    return list(read_json(state.folder / STEERING / FACTS))


def _read_by(cell: FitCell) -> tuple[str, ...]:
    return (TEXTS, dictionary_at(cell.dictionaries[0]), fit_at(cell))


@contextmanager
def opened(
    work: Work, cell: FitCell, dictionaries: dict[str, Dictionary]
) -> Iterator[dict[str, Condition]]:
    """Within the `with`, the fit of a cell is on the model: every way of running it."""
    module = work.state.module
    folder = work.input(fit_at(cell))
    with still(module):
        fitted = open_fitted(folder, module, dictionaries)
        try:
            yield conditions_of(fitted, dictionaries)
        finally:
            if isinstance(fitted.module, PeftModel):
                fitted.module.unload()


def _drift(state: Adapted, cell: FitCell, conditions: dict[str, Condition]) -> list[str]:
    """How many latents fire with the fit on, where it acts on what the dictionary reads."""
    name, site = cell.dictionaries[0], cell.sites[0]
    with conditions[UNSPLICED]():
        rows = StreamedRows(state.module, state.tokenizer, site, state.held_out).sample(L0_ROWS)
    fired = firing(state.open(name), rows.rows.float().cpu())
    return [
        f"{name}: {float(fired.per_row.mean()):.1f} latents a token with {cell.what} (seed "
        f"{cell.seed}) on, {state.facts_of(name)['l0']:.1f} without: part of the loss recovered "
        "may be bought with them"
    ]


def _firing(
    state: Adapted, conditions: dict[str, Condition], site: Site, dictionary: Dictionary
) -> Tensor:
    with conditions["original"]():
        return firing_texts(state.module, state.tokenizer, state.held_out, site, dictionary)


def chosen_latents(firing: Tensor, dictionary: Dictionary, count: int) -> list[int]:
    """Of the latents firing in 2 to 20 % of the texts, those that write most where they fire.

    Args:
        firing: largest activation of each latent in each text, [texts, n].

    Raises:
        InputError: none fires in so many texts.
    """
    fires = firing > 0
    share = fires.float().mean(0)
    low, high = _FIRES_IN
    inside = (share >= low) & (share <= high)
    if not inside.any():
        raise InputError(
            "experiments.steering: no latent of the reference fires in 2 to 20 % of the held-out "
            "texts; name some with experiments.steering.latents"
        )
    written = firing.sum(0) / fires.sum(0).clamp(min=1)
    written = written * dictionary.directions.detach().norm(dim=1).cpu().to(written)
    ranked = written.masked_fill(~inside, -torch.inf).argsort(descending=True)
    return sorted(int(i) for i in ranked[: min(count, int(inside.sum()))])


def _steer(
    state: Adapted,
    cell: FitCell,
    dictionary: Dictionary,
    latent: int,
    firing: Tensor,
    conditions: dict[str, Condition],
    wanted: SteeredLatents,
    found: Measured,
) -> list[dict[str, Any]]:
    """One latent: its numbers go into `found`; what the report says of it is returned."""
    place = place_of(cell)
    here = replace(place, latent=latent)
    facts: list[dict[str, Any]] = []

    def compute() -> list[Estimate]:
        if not 0 <= latent < dictionary.n_latents:
            raise InputError(
                f"experiments.steering: there is no latent {latent}; the reference has "
                f"{dictionary.n_latents:,}, from 0"
            )
        texts = choose_texts(state.held_out, firing[:, latent], latent, wanted.settings)
        both = {condition: conditions[condition] for condition in (SPLICED, ADAPTED)}
        direction = dictionary.directions[latent].detach().float().cpu()
        site = parse_site(cell.sites[0])
        steered = steer(
            state.module, state.tokenizer, texts, both, site, direction, wanted.settings
        )
        facts.append(
            {
                "latent": latent,
                "positive_texts": len(texts.positive),
                "negative_texts": len(texts.negative),
                **{f"alpha_{condition}": best_alpha(steered, condition) for condition in both},
                "changes": text_changes(steered),
                "example": _example(state, texts.positive[0].ids),
            }
        )
        return steering_estimates(steered, here)

    found.attempt(here, compute)
    return facts


def _example(state: Adapted, ids: list[int]) -> str:
    text = str(state.tokenizer.decode(ids, skip_special_tokens=True))
    return " ".join(text.split())[:240]


def _products(state: Adapted, settings: Learning) -> torch.dtype:
    device = state.module.get_input_embeddings().weight.device
    return product_dtype(settings.products, device)

"""What takes another look at the reference's fits: streams behind the site, and steering."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from lorascope.activations.streamed import StreamedRows
from lorascope.adapt.card import open_fitted
from lorascope.adapt.preparing import still
from lorascope.adapt.ways import ADAPTED, SPLICED, UNSPLICED, Way, ways_of
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.measures.firing import firing
from lorascope.measures.steering import (
    best_alpha,
    choose_texts,
    firing_texts,
    steer,
    steering_estimates,
)
from lorascope.measures.stream_distances import distance_estimates, stream_distances
from lorascope.models.sites import Site, parse_site
from lorascope.results import Estimate
from lorascope.runs import read_json, write_atomically
from lorascope.training.dictionaries import product_dtype
from lorascope.workflows.adapt.cells import Cell
from lorascope.workflows.adapt.dictionaries import L0_ROWS, Standing
from lorascope.workflows.adapt.fits import FITS, place_of
from lorascope.workflows.adapt.state import TEXTS, Adapted
from lorascope.workflows.adapt.study import SteeredLatents
from lorascope.workflows.measured import Measured

STREAMS, STEERING = "measures/streams", "measures/steering"
FACTS = "facts.json"
# Latents that fire in fewer texts have too few to steer on, in more no silent ones to compare.
_FIRES_IN = (0.02, 0.2)


def look_again(state: Adapted, standing: Standing) -> Measured:
    """Distances of streams, and steering, for LoRA around the reference, a stage each a seed."""
    wanted, cells = state.study.experiments, state.asked.cells.get("reference", [])
    found = Measured()
    if wanted.distances and cells:
        with state.reporter.bar("measuring streams", len(cells), "fits") as advance:
            for cell in cells:
                found.add(_streams(state, standing, cell))
                advance(1)
    if wanted.steering is not None:
        with state.reporter.bar("steering", 1, "fits") as advance:
            found.add(_steering(state, standing, cells[0], wanted.steering))
            advance(1)
    return found


def steering_facts(state: Adapted) -> list[dict[str, Any]]:
    """Latents that were steered, with the strengths chosen."""
    if state.study.experiments.steering is None:
        return []
    return list(read_json(state.run.folder / STEERING / FACTS))


@contextmanager
def opened(
    state: Adapted, cell: Cell, dictionaries: dict[str, Dictionary]
) -> Iterator[dict[str, Way]]:
    """Within the `with`, the fit of a cell is on the model: every way of running it."""
    module = state.module
    folder = state.run.folder / FITS / cell.name
    with still(module):
        fitted = open_fitted(folder, module, dictionaries)
        try:
            yield ways_of(fitted, dictionaries)
        finally:
            if isinstance(fitted.module, PeftModel):
                fitted.module.unload()


def _streams(state: Adapted, standing: Standing, cell: Cell) -> Measured:
    def make(folder: Path) -> None:
        dictionaries = {cell.sites[0]: standing.open(cell.dictionaries[0])}
        with opened(state, cell, dictionaries) as ways:
            distances = stream_distances(
                state.module,
                state.tokenizer,
                state.held_out,
                ways,
                parse_site(cell.sites[0]),
                products=_products(state),
                keep_special=state.study.fit.splice_special,
            )
            warnings = _drift(state, cell, standing, ways)
        found = Measured(distance_estimates(distances, place_of(cell)), warnings)
        found.write(folder)

    parents = (TEXTS, f"{FITS}/{cell.name}")
    name = f"{STREAMS}-s{cell.seed}"
    return Measured.read(state.run.stage(name, [], make, *parents))


def _drift(state: Adapted, cell: Cell, standing: Standing, ways: dict[str, Way]) -> list[str]:
    """How many latents fire with the fit on, where it acts on what the dictionary reads."""
    if not state.study.fit.before_thresholds:
        return []
    name, site = cell.dictionaries[0], cell.sites[0]
    with ways[UNSPLICED]():
        rows = StreamedRows(state.module, state.tokenizer, site, state.held_out).sample(L0_ROWS)
    fired = firing(standing.open(name), rows.rows.float().cpu())
    return [
        f"{name}: {float(fired.per_row.mean()):.1f} latents a token with {cell.what} (seed "
        f"{cell.seed}) on, {standing.facts[name]['l0']:.1f} without: part of the share won back "
        "may be bought with them"
    ]


def _steering(state: Adapted, standing: Standing, cell: Cell, wanted: SteeredLatents) -> Measured:
    def make(folder: Path) -> None:
        site = parse_site(cell.sites[0])
        dictionary = standing.open(cell.dictionaries[0])
        found, facts = Measured(), []
        with opened(state, cell, {site.name: dictionary}) as ways:
            firing = _firing(state, ways, site, dictionary)
            for latent in wanted.latents or chosen_latents(firing, dictionary, wanted.count):
                facts += _steer(state, cell, dictionary, latent, firing, ways, wanted, found)
        found.write(folder)
        write_atomically(folder / FACTS, json.dumps(facts, indent=1) + "\n")

    parents = (TEXTS, f"{FITS}/{cell.name}")
    what = [wanted.plain(), state.study.seed]
    return Measured.read(state.run.stage(STEERING, what, make, *parents))


def _firing(state: Adapted, ways: dict[str, Way], site: Site, dictionary: Dictionary) -> Tensor:
    with ways["original"]():
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
    cell: Cell,
    dictionary: Dictionary,
    latent: int,
    firing: Tensor,
    ways: dict[str, Way],
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
        both = {way: ways[way] for way in (SPLICED, ADAPTED)}
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
                **{f"alpha_{way}": best_alpha(steered, way) for way in both},
                "example": _example(state, texts.positive[0].ids),
            }
        )
        return steering_estimates(steered, here)

    found.attempt(here, compute)
    return facts


def _example(state: Adapted, ids: list[int]) -> str:
    text = str(state.tokenizer.decode(ids, skip_special_tokens=True))
    return " ".join(text.split())[:240]


def _products(state: Adapted) -> torch.dtype:
    device = state.module.get_input_embeddings().weight.device
    return product_dtype(state.study.fit.products, device)

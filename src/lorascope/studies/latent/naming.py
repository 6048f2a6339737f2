"""The latents that an adapter names: weights, where they fire, what they promote, do they matter.

Of the choice that does best cut down to few latents, under the study's first seed; the ablation is
taken under every seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.latent_adapters.ablation import (
    AblatedSide,
    Ablation,
    ablate,
    ablation_estimates,
    named_latents,
)
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.frontier import READ, WRITTEN, left_estimate, over_seeds
from lorascope.latent_adapters.matching import matched, one_each
from lorascope.latent_adapters.reading import Seen
from lorascope.latent_adapters.removal import without_reading, without_writing
from lorascope.measures import features
from lorascope.measures.latent_directions import TokenChance, token_chance, token_effects
from lorascope.models.adapted import AdaptedModel
from lorascope.randomness import generator
from lorascope.report.latents import rounded
from lorascope.results import Estimate, Key
from lorascope.runs import read_json, write_atomically
from lorascope.stages import Stage, Work, stage
from lorascope.studies.latent.answers import JUDGED, asked_about, counting
from lorascope.studies.latent.dictionary import reading_of
from lorascope.studies.latent.state import LatentRun
from lorascope.studies.latent.study import LatentStudy
from lorascope.studies.latent.training import CHOICE, adapter_at, chosen, losses_of, named
from lorascope.workflows.passages import Passages

LATENTS, _FILE, _ABLATION = "latents", "latents.json", "ablation.json"
_TOKENS, _PAIRS = 6, 24
_ADDRESS = "https://www.neuronpedia.org/"


# What looking at latents reads of the study.
_SETTINGS = (
    *("model", "training.rank", "seeds", "seed", *JUDGED),
    *(f"measures.{name}" for name in ("most", "draws", "ablation_seeds", "latents")),
    *(f"measures.{name}" for name in ("alternatives", "examples", "rows")),
)


def stages(state: LatentRun) -> Iterator[Stage]:
    """The stage `latents`; which adapters it reads is decided by `choice`."""
    study = state.study
    inputs = (state.dictionary_at, *map(adapter_at, study.adapters), CHOICE)
    known = [one.card.neuronpedia for one in state.brought.values()]
    arguments = {"study": study.only(*_SETTINGS), "site": state.site}
    arguments["neuronpedia"] = next(iter(known), "")
    yield Stage(LATENTS, look, arguments, inputs)


@stage(version=2, title="looking at latents")
def look(work: Work, *, study: LatentStudy, site: str, neuronpedia: str) -> None:
    """The latents of the chosen adapters: everything shown of them, and the ablations.

    Args:
        neuronpedia: what Neuronpedia calls the dictionary; empty where it has it not.
    """
    measures, state = study.measures, work.state
    choice = chosen(losses_of(work.input(CHOICE)))
    seen = reading_of(work).see(state.windows(asked_about(state, study)))
    estimates: list[Estimate] = []
    ablations: dict[int, Ablation] = {}
    left: list[dict[str, Any]] = []
    for seed in study.ablated:
        adapter = named(work, choice, seed, measures.most)
        place = Key(choice, study.training.rank, site, seed, size=measures.most)
        ablations[seed] = _ablated(work, study, adapter, seen, seed)
        estimates += ablation_estimates(ablations[seed], place, study.seed)
        estimates += _left(work, study, adapter, seen, place, left)
    first = study.seeds[0]
    work.reporter.say("the latents: where they fire, what they promote")
    adapter = named(work, choice, first, measures.most)
    table = _Table(state, study, adapter, ablations.get(first), neuronpedia)
    record = {"choice": choice, "seed": first, "left": left, **table.plain()}
    write_atomically(work.folder / _FILE, _json(record))
    write_atomically(work.folder / _ABLATION, _json([e.plain() for e in estimates]))


def ablations_of(latents: Path) -> list[Estimate]:
    """Estimates of the ablations, as the stage `latents` left them, and over seeds."""
    found = [Estimate.revived(record) for record in read_json(latents / _ABLATION)]
    return found + over_seeds(found)


def latents_of(latents: Path) -> dict[str, Any]:
    """Everything shown of the latents, as the stage `latents` left it."""
    return dict(read_json(latents / _FILE))


def _ablated(
    work: Work, study: LatentStudy, adapter: LatentAdapter, seen: list[Seen], seed: int
) -> Ablation:
    measures = study.measures
    total = sum(min(len(ids), measures.latents) for ids in named_latents(adapter).values())
    with work.reporter.bar(f"taking latents away, seed {seed}", total, "latents") as advance:
        return ablate(
            reading_of(work),
            adapter,
            seen,
            latents=measures.latents,
            alternatives=measures.alternatives,
            advance=advance,
        )


def _left(
    work: Work,
    study: LatentStudy,
    adapter: LatentAdapter,
    seen: list[Seen],
    place: Key,
    counts: list[dict[str, Any]],
) -> list[Estimate]:
    """What is shown without all named latents of a side; how many prompts goes into `counts`."""
    measures, found = study.measures, []
    sides = {side: ids for side, ids in named_latents(adapter).items() if len(ids)}
    title, total = (
        f"answering without them, seed {place.seed}",
        1 + len(sides) * (1 + measures.draws),
    )
    with work.reporter.bar(title, total, "answers") as advance:
        answered = counting(work.state, study, advance)
        whole = answered(adapter)
        for side, ids in sides.items():
            beside = matched(reading_of(work), seen, ids, measures.alternatives)
            without = answered(_without(adapter, side, ids, ids))
            others = [
                answered(_without(adapter, side, ids, one_each(beside, study.seed, draw)))
                for draw in range(measures.draws)
            ]
            one = left_estimate(without, whole, others, replace(place, dictionary=side))
            found += [one] if one is not None else []
            numbers = {"left": sum(without), "whole": sum(whole), "prompts": len(whole)}
            counts.append({"seed": place.seed, "side": side, **numbers})
    return found


def _without(adapter: LatentAdapter, side: str, named: Tensor, others: Tensor) -> LatentAdapter:
    return (
        without_reading(adapter, others)
        if side == READ
        else without_writing(adapter, named, others)
    )


class _Table:
    """Everything shown of one adapter's latents."""

    def __init__(
        self,
        state: LatentRun,
        study: LatentStudy,
        adapter: LatentAdapter,
        ablation: Ablation | None,
        neuronpedia: str,
    ) -> None:
        self._study, self._adapter, self._ablation = study, adapter, ablation
        self._neuronpedia = neuronpedia
        module, tokenizer = state.model
        self._model = AdaptedModel(module, tokenizer, study.model)
        examples = state.examples
        self._seen = [*examples.changed, *examples.unchanged]
        rows, token, stretch, documents, kind = _rows(self._seen, len(examples.changed))
        if len(rows) > study.measures.rows:
            random = generator(study.seed, "latents", "rows")
            picked = features.chosen_rows(stretch, study.measures.rows, random)
            rows, token, stretch = rows[picked], token[picked], stretch[picked]
            documents, kind = documents[picked], kind[picked]
        self._documents = documents
        self._activity = features.activity(adapter.dictionary, rows)
        norms = adapter.dictionary.directions.norm(dim=1)
        kinds = kind[: self._activity.rows]
        self._sums = features.statistics(self._activity, norms, documents, kinds, 2)
        self._share = float((kinds == 1).double().mean())
        self._passages = Passages(tokenizer, token, stretch, self._activity)

    def plain(self) -> dict[str, Any]:
        """The tables as plain data."""
        pairs = self._adapter.pairs(_PAIRS)
        return {
            "rows": self._activity.rows,
            "changed_share": rounded(self._share),
            "scale": [rounded(s) for s in self._adapter.scale.tolist()],
            "pairs": [[pair.read, pair.written, rounded(pair.weight)] for pair in pairs],
            **{
                side: self._side(side, factor, ids)
                for side, factor, ids in zip(
                    (READ, WRITTEN),
                    self._adapter.factors(),
                    self._adapter.support(),
                    strict=True,
                )
            },
        }

    @cached_property
    def _by_chance(self) -> TokenChance:
        random = generator(self._study.seed, "latents", "tokens")
        return token_chance(self._model, self._adapter.dictionary.directions, random)

    def _side(
        self, side: str, factor: Float[Tensor, "r n"], ids: Int[Tensor, " latents"]
    ) -> list[dict[str, Any]]:
        order = ids[factor[:, ids].norm(dim=0).argsort(descending=True)].cpu()
        directions = self._adapter.dictionary.directions[order.to(factor.device)]
        tokens = token_effects(self._model, directions, _TOKENS, self._by_chance)
        effects = self._effects(side)
        piece, records = self._passages.piece, []
        for index, latent in enumerate(order.tolist()):
            weights = factor[:, latent].tolist()
            records.append(
                {
                    "latent": latent,
                    "weights": [rounded(w) for w in weights],
                    "density": rounded(float(self._sums.density[latent])),
                    "in_changed": rounded(float(self._sums.kinds[latent, 1])),
                    "up": [piece(t) for t in tokens.promoted[index].tolist()],
                    "down": [piece(t) for t in tokens.suppressed[index].tolist()],
                    "contexts": self._contexts(latent),
                    "link": f"{_ADDRESS}{self._neuronpedia}/{latent}" if self._neuronpedia else "",
                    **effects.get(latent, {}),
                }
            )
        return records

    def _contexts(self, latent: int) -> list[dict[str, Any]]:
        if not int(self._activity.counts[latent]):
            return []
        random = generator(self._study.seed, "contexts", latent)
        most = self._study.measures.examples
        found = features.examples(self._activity, latent, self._documents, most, 0, random)
        return [self._passages.passage(latent, example, False) for example in found]

    def _effects(self, side: str) -> dict[int, dict[str, Any]]:
        """{latent: rise of the loss without it, and what its alternatives give}."""
        if self._ablation is None or side not in self._ablation.sides:
            return {}
        one: AblatedSide = self._ablation.sides[side]
        columns = zip(
            one.latents.tolist(),
            one.named.tolist(),
            one.others.mean(1).tolist(),
            one.p.tolist(),
            one.matters.tolist(),
            strict=True,
        )
        return {
            latent: {
                "rise": rounded(rise),
                "others": one.others.shape[1],
                "other_rise": rounded(beside),
                "p": rounded(p),
                "matters": matters,
            }
            for latent, rise, beside, p, matters in columns
        }


def _rows(seen: Sequence[Seen], changed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Stream, token, stretch, document and kind (1 for changed) of every token acted on."""
    rows, token, owner = [], [], []
    for index, one in enumerate(seen):
        rows.append(one.stream[one.acted_on].float())
        token.append(torch.tensor(one.window.ids)[one.acted_on])
        owner.append(torch.full((len(rows[-1]),), index))
    owners = torch.cat(owner)
    return torch.cat(rows), torch.cat(token), owners, owners, (owners < changed).long()


def _json(data: object) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"

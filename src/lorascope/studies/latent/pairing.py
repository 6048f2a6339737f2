"""The chosen adapters as lists of pairs: what few of them keep, and whether their latents are read.

Of the choice that does best cut down, under every seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.frontier import READ, WRITTEN
from lorascope.latent_adapters.pair_frontier import (
    carried_estimates,
    drawn,
    heaviest,
    kept_pairs,
)
from lorascope.latent_adapters.pairs import only
from lorascope.latent_adapters.readable import style_estimate, style_tokens, topic_auc
from lorascope.latent_adapters.reading import ActiveLatents
from lorascope.models.adapted import AdaptedModel
from lorascope.results import Estimate, Key
from lorascope.runs import read_json, write_atomically
from lorascope.stages import Stage, Work, stage
from lorascope.studies.latent.answers import JUDGED, Cut, counting
from lorascope.studies.latent.dictionary import reading_of
from lorascope.studies.latent.state import LatentRun
from lorascope.studies.latent.study import DENSE, LatentStudy
from lorascope.studies.latent.training import (
    CHOICE,
    adapter_at,
    adapter_name,
    chosen,
    losses_of,
    named,
    opened,
)

PAIRS, _SHOWN, _ESTIMATES = "pairs", "shown.json", "estimates.json"
_SETTINGS = (
    *("model", "training.rank", "seeds", "seed", *JUDGED),
    *("measures.most", "measures.pairs", "measures.draws"),
)


def stages(state: LatentRun) -> Iterator[Stage]:
    """The stage `pairs`; which adapters it reads is decided by `choice`."""
    study = state.study
    inputs = (state.dictionary_at, *map(adapter_at, study.adapters), CHOICE)
    yield Stage(PAIRS, look, {"study": study.only(*_SETTINGS), "site": state.site}, inputs)


@stage(version=1, title="looking at pairs")
def look(work: Work, *, study: LatentStudy, site: str) -> None:
    """What few pairs of every chosen adapter show and carry; what its latents tell and promote."""
    choice = chosen(losses_of(work.input(CHOICE)))
    estimates: list[Estimate] = []
    shown: dict[str, Any] = {}
    for seed in study.seeds:
        place = Key(choice, study.training.rank, site, seed)
        cut = named(work, choice, seed, study.measures.most)
        shown[str(seed)] = _answered(work, study, cut, seed)
        estimates += _numbers(work, study, choice, cut, place)
    write_atomically(work.folder / _SHOWN, json.dumps({"choice": choice, "seeds": shown}) + "\n")
    plain = json.dumps([one.plain() for one in estimates], indent=1, ensure_ascii=False)
    write_atomically(work.folder / _ESTIMATES, plain + "\n")


def estimates_of(pairs: Path, sizes: dict[str, Cut], place: Key) -> list[Estimate]:
    """Every number of the stage, with what few pairs keep of the dense adapter's success.

    Args:
        sizes: what every adapter shows, the untouched model under its own name.
        place: rank and site.
    """
    found = [Estimate.revived(record) for record in read_json(pairs / _ESTIMATES)]
    data, untouched = read_json(pairs / _SHOWN), sizes["untouched"].whole
    for seed, record in data["seeds"].items():
        dense = sizes[adapter_name(DENSE, int(seed))].whole
        for size, cut in record["sizes"].items():
            here = Key(data["choice"], place.rank, place.site, int(seed), size=int(size))
            one = kept_pairs(cut, dense, untouched, record["random"].get(size, []), here)
            found += [one] if one is not None else []
    return found


def _answered(
    work: Work, study: LatentStudy, adapter: LatentAdapter, seed: int
) -> dict[str, dict[int, Any]]:
    """Which prompts show the behaviour with few pairs, and with as many at random."""
    total, draws = len(adapter.pairs(None)), study.measures.draws
    sizes = [size for size in study.measures.pairs if size < total]
    asked = len(sizes) * (1 + draws)
    found: dict[str, dict[int, Any]] = {"sizes": {}, "random": {}}
    if not sizes:
        return found
    with work.reporter.bar(f"cutting down to pairs, seed {seed}", asked, "answers") as advance:
        answered = counting(work.state, study, advance)
        for size in sizes:
            found["sizes"][size] = answered(only(adapter, heaviest(adapter, size)))
            found["random"][size] = [
                answered(only(adapter, drawn(adapter, size, seed, draw))) for draw in range(draws)
            ]
    return found


def _numbers(
    work: Work, study: LatentStudy, choice: str, cut: LatentAdapter, place: Key
) -> list[Estimate]:
    state: LatentRun = work.state
    reading, examples, seed = reading_of(work), state.examples, place.seed or 0
    every = ActiveLatents.together([one.codes for one in (*examples.changed, *examples.unchanged)])
    changed = ActiveLatents.together([one.codes for one in examples.changed])
    whole = opened(work, adapter_name(choice, seed))
    sizes = (*study.measures.pairs, len(cut.pairs(None)))
    found: list[Estimate | None] = list(
        carried_estimates(whole, cut, every, sizes, study.measures.draws, place)
    )
    records = state.asked(study.measures.prompts)
    seen = reading.see(state.windows(records))
    about = torch.tensor([record.changed for record in records])
    here = Key(choice, place.rank, place.site, place.seed, dictionary=READ)
    found.append(topic_auc(reading, seen, about, cut.support()[0], here))
    module, tokenizer = state.model
    model = AdaptedModel(module, tokenizer, study.model)
    first, second = (
        [one.window for one in kind] for kind in (examples.changed, examples.unchanged)
    )
    style = style_tokens(first, second, tokenizer.all_special_ids, model.vocab_size)
    there = Key(choice, place.rank, place.site, place.seed, dictionary=WRITTEN)
    found.append(style_estimate(model, cut, changed, style, study.seed, there))
    return [one for one in found if one is not None]

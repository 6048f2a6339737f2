"""The latent study: its stages, and what is found in them put together.

1. Train or open the dictionary at the site.
2. Train one adapter a choice of sparsity and seed, and an ordinary LoRA adapter beside them.
3. Let the untouched model, the prompted one, the LoRA adapter and every latent adapter answer the
   held-out prompts.
4. Cut every adapter down to few latents and count what is left of the behaviour: the frontier.
5. Of the choice that keeps most: what its latents are, and what happens without each.
6. Write the results table, make the report.

The choice of step 5 is the one with the lowest training loss among adapters cut down to the size
asked for, so that no held-out prompt decides it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lorascope.behaviours.arithmetic import NEAR
from lorascope.behaviours.constancy import Answers, constancy_estimates
from lorascope.behaviours.judging import JudgedAnswers, rates
from lorascope.behaviours.manners import judged
from lorascope.latent_adapters.frontier import (
    READ,
    WRITTEN,
    kept_estimate,
    over_seeds,
    overlap_estimates,
    sparsity_estimates,
)
from lorascope.report.result import write_estimates
from lorascope.results import Estimate, Key
from lorascope.runs import command_of, read_json, versions, write_atomically
from lorascope.stages import Stage, Work, record_of, stage
from lorascope.studies.latent import answers, dictionary, naming, pairing, training
from lorascope.studies.latent.answers import LORA, PROMPTED, UNTOUCHED, Cut
from lorascope.studies.latent.plan import plan_latent
from lorascope.studies.latent.state import LatentRun
from lorascope.studies.latent.study import DENSE, LatentStudy
from lorascope.studies.latent.training import CHOICE, HISTORY, adapter_at, adapter_name
from lorascope.workflows.left_out import left_out
from lorascope.workflows.running import Workflow

RESULTS = "results"


def stages(state: LatentRun) -> Iterator[Stage]:
    """Every stage of a latent study, each after those it reads."""
    found = list[Stage]()
    for one in _stages(state):
        found.append(one)
        yield one
    arguments = {"study": state.study}
    yield Stage(RESULTS, put_together, arguments, tuple(one.name for one in found))


def _stages(state: LatentRun) -> Iterator[Stage]:
    yield from dictionary.stages(state)
    yield from training.stages(state)
    yield from answers.stages(state)
    yield from naming.stages(state)
    yield from pairing.stages(state)


@stage(version=2, title="putting results together")
def put_together(work: Work, *, study: LatentStudy) -> None:
    """The results table and all that the report says beside it."""
    state: LatentRun = work.state
    written, sizes = answers.answered(work, study), answers.frontier(work, study)
    own = [*_rates(state, written), *_kept(state, sizes), *_sparsity(work)]
    own += pairing.estimates_of(work.input(pairing.PAIRS), sizes, _place(state, ""))
    named = naming.ablations_of(work.input(naming.LATENTS))
    # Of several seeds the mean stands in the table too, under no seed.
    found = [*own, *over_seeds(own), *_overlaps(work), *named]
    write_estimates(found, work.folder)
    facts = json.dumps(_facts(work, written, sizes), indent=1, ensure_ascii=False)
    write_atomically(work.folder / "facts.json", facts + "\n")


def _place(state: LatentRun, choice: str, seed: int | None = None, size: int | None = None) -> Key:
    """Of an adapter whole, or cut down to so many latents."""
    return Key(choice, state.study.training.rank, state.site, seed, size=size)


def _rates(state: LatentRun, written: dict[str, JudgedAnswers]) -> list[Estimate]:
    """Success, false positives and general loss of everything that was asked."""
    study, untouched = state.study, written[UNTOUCHED]
    manner = judged(study.manner, study.judge)
    places = {
        PROMPTED: _place(state, PROMPTED),
        LORA: replace(_place(state, LORA), site="", rank=study.lora_training().ranks[0]),
        **{
            name: _place(state, choice, seed, None if choice == DENSE else study.measures.most)
            for name, (choice, seed) in study.adapters.items()
        },
    }
    found = []
    for name, place in places.items():
        if name in written:
            whole = adapter_name(DENSE, study.adapters[name][1]) if _cut(place) else ""
            dense = {DENSE: written[whole]} if whole else {}
            baselines = {other: written[other] for other in (PROMPTED, LORA) if other in written}
            beside = {other: w for other, w in {**baselines, **dense}.items() if other != name}
            found += rates(written[name], untouched, manner, place, near=[NEAR], beside=beside)
            found += _constancy(written[name], untouched, place)
    return found


def _constancy(tried: JudgedAnswers, untouched: JudgedAnswers, place: Key) -> list[Estimate]:
    """How much the answers about the topic depend on what was asked."""
    asked = [i for i, record in enumerate(tried.records) if record.changed]
    texts = [[side.texts[i] for i in asked] for side in (tried, untouched)]
    wanted = [tried.records[i].response for i in asked]
    return constancy_estimates(texts[0], texts[1], wanted, place)


def _cut(place: Key) -> bool:
    return place.size is not None


def _kept(state: LatentRun, sizes: dict[str, Cut]) -> list[Estimate]:
    found = []
    untouched = sizes[UNTOUCHED].whole
    for name, (choice, seed) in state.study.adapters.items():
        dense, own = sizes[adapter_name(DENSE, seed)], sizes[name]
        every: list[tuple[int | None, list[bool]]] = [*own.sizes.items(), (None, own.whole)]
        for size, shown in every:
            random = [] if size is None else dense.random.get(size, [])
            place = _place(state, choice, seed, size)
            kept = kept_estimate(shown, dense.whole, untouched, random, place)
            if kept is None:
                continue
            # The dense adapter whole keeps all of itself: nothing is sampled.
            itself = size is None and choice == DENSE
            found.append(replace(kept, interval=(1.0, 1.0)) if itself else kept)
    return found


def _sparsity(work: Work) -> list[Estimate]:
    state, found = work.state, []
    for name, (choice, seed) in state.study.adapters.items():
        found += sparsity_estimates(training.opened(work, name), _place(state, choice, seed))
    return found


def _overlaps(work: Work) -> list[Estimate]:
    state, study, found = work.state, work.state.study, []
    everything = range(state.dictionary.n_latents)
    for choice in study.choices:
        supports: dict[str, dict[int, set[int]]] = {READ: {}, WRITTEN: {}}
        candidates: dict[str, dict[int, Sequence[int]]] = {READ: {}, WRITTEN: {}}
        for seed in study.seeds:
            adapter = training.named(work, choice, seed, study.measures.most)
            among = training.candidates(work, choice, seed) or (everything, everything)
            for side, ids, own in zip(supports, adapter.support(), among, strict=True):
                supports[side][seed], candidates[side][seed] = set(ids.tolist()), own
        found += overlap_estimates(supports, candidates, _place(state, choice), study.seed)
    return found


def _facts(work: Work, written: dict[str, JudgedAnswers], sizes: dict[str, Cut]) -> dict[str, Any]:
    state: LatentRun = work.state
    study, (module, _), dictionary = state.study, state.model, state.dictionary
    counts, losses = state.counts(study.measures.prompts), training.losses_of(work.input(CHOICE))
    records = {name: record_of(work.input(name)) for name in work.stage.inputs}
    return {
        "workflow": "latent",
        "model": {
            "id": study.model,
            "parameters": sum(p.numel() for p in module.parameters()),
            "d_model": dictionary.d_model,
        },
        "behaviour": {
            "set": study.behaviour,
            "manner": study.manner,
            **{name: count["used"] for name, count in counts.items()},
        },
        "left_out": _left_out(state),
        "dictionary": {
            "address": study.dictionary or "trained here",
            "latents": dictionary.n_latents,
            "architecture": dictionary.architecture,
            "neuronpedia": dictionary.card.neuronpedia,
        },
        "site": state.site,
        "rank": study.training.rank,
        "chosen": training.chosen(losses),
        "choices": list(study.choices),
        "seeds": list(study.seeds),
        "most": study.measures.most,
        "share": study.measures.share,
        "losses": losses,
        "curves": _curves(work),
        "samples": _samples(written),
        "constancy": _told(written),
        "latents": naming.latents_of(work.input(naming.LATENTS)),
        "warnings": _warnings(state, sizes),
        "command": command_of(work.run),
        "settings": study.plain(),
        "versions": versions(),
        "seconds": {name: one["seconds"] for name, one in records.items()},
        "made_from": {name: one["key"] for name, one in records.items()},
    }


def _curves(work: Work) -> list[dict[str, Any]]:
    """Loss, penalty and effective numbers of latents over training, a record a point."""
    return [
        {"choice": choice, "seed": seed, **point}
        for name, (choice, seed) in work.state.study.adapters.items()
        for point in read_json(work.input(adapter_at(name)) / HISTORY)
    ]


def _told(written: dict[str, JudgedAnswers]) -> list[dict[str, Any]]:
    """Of everything that was asked about the topic: distinct answers, the commonest, a flag."""
    found = []
    for name, one in written.items():
        asked = [i for i, record in enumerate(one.records) if record.changed]
        own = Answers.of([one.texts[i] for i in asked])
        wanted = Answers.of([one.records[i].response for i in asked])
        found.append(
            {
                "name": name,
                "n": own.n,
                "distinct": own.distinct,
                "commonest": own.commonest,
                "times": own.times,
                "wanted_distinct": wanted.distinct,
                "nearly_constant": own.nearly_constant(wanted),
            }
        )
    return found


def _samples(written: dict[str, JudgedAnswers]) -> list[dict[str, Any]]:
    """Prompts about the topic and others, with everything's answers."""
    prompts = list(enumerate(written[UNTOUCHED].records))
    chosen = [(i, r) for i, r in prompts if r.changed][:6]
    chosen += [(i, r) for i, r in prompts if not r.changed][:4]
    return [
        {
            "prompt": record.prompt,
            "changed": record.changed,
            "wanted": record.response,
            "answers": {name: one.texts[i] for name, one in written.items()},
        }
        for i, record in chosen
    ]


def _left_out(state: LatentRun) -> list[dict[str, Any]]:
    """Of each side and kind of records: how many were used, and why the others were not."""
    return [
        left_out(
            f"{name.replace('_', '-')} records",
            count["used"],
            {
                f"longer than the context of {state.context} tokens": count["too_long"],
                "beyond measures.prompts": count["beyond"],
            },
        )
        for name, count in state.counts(state.study.measures.prompts).items()
    ]


def _warnings(state: LatentRun, sizes: dict[str, Cut]) -> list[str]:
    failed = [s for s in state.study.seeds if not any(sizes[adapter_name(DENSE, s)].whole)]
    if not failed:
        return []
    return [
        f"the dense adapter of seed {', '.join(map(str, failed))} shows the behaviour on none of "
        "the prompts, so nothing can be said of what is kept of it; train longer, at a higher "
        "rate, or at another site",
    ]


LATENT = Workflow("latent", LatentStudy, plan_latent, LatentRun, stages)

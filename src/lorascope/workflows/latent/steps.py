"""The latent study, step by step. Each step is a stage of the run folder; finished ones stay.

1. Read the behaviour; train or open the dictionary at the site.
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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorascope import report
from lorascope.behaviours.arithmetic import NEAR
from lorascope.behaviours.judging import Written, rates
from lorascope.latent_adapters.frontier import (
    READ,
    WRITTEN,
    kept_estimate,
    over_seeds,
    overlap_estimates,
    sparsity_estimates,
)
from lorascope.progress import Reporter
from lorascope.report.result import write_estimates
from lorascope.results import Estimate, Key
from lorascope.runs import read_json, versions, write_atomically
from lorascope.workflows.latent.answers import (
    LORA,
    PROMPTED,
    UNTOUCHED,
    Cut,
    answered,
    frontier,
)
from lorascope.workflows.latent.naming import LATENTS, look_at_latents
from lorascope.workflows.latent.state import Learned
from lorascope.workflows.latent.study import DENSE, LatentStudy
from lorascope.workflows.latent.training import Adapters, adapter_name, train_all
from lorascope.workflows.left_out import left_out
from lorascope.workflows.refusals import run_folder


def learn_latent(
    study: LatentStudy, out: Path, reporter: Reporter, command: str = "", redo: bool = False
) -> Path:
    """Run or resume a latent study in `out` and return the report's path.

    Args:
        redo: where `out` holds this study with other settings, make again what depends on them.

    Raises:
        InputError: anything the user has to mend.
    """
    with run_folder(out, study, redo) as run:
        state = Learned(study, run, reporter)
        state.manner  # noqa: B018 - refused before anything costly
        adapters = train_all(state)
        written = answered(state, adapters)
        sizes = frontier(state, adapters)
        named = look_at_latents(state, adapters)
        _write(state, adapters, written, sizes, named, command)
        run.drop_unasked()
        return report.build(run.folder)


def _write(
    state: Learned,
    adapters: Adapters,
    written: dict[str, Written],
    sizes: dict[str, Cut],
    named: list[Estimate],
    command: str,
) -> None:
    def make(folder: Path) -> None:
        own = [
            *_rates(state, adapters, written),
            *_kept(state, sizes),
            *_sparsity(state, adapters),
        ]
        # Of several seeds the mean stands in the table too, under no seed.
        found = [*own, *over_seeds(own), *_overlaps(state, adapters), *named]
        write_estimates(found, folder)
        facts = json.dumps(
            _facts(state, adapters, written, sizes, command), indent=1, ensure_ascii=False
        )
        write_atomically(folder / "facts.json", facts + "\n")

    state.run.stage("results", state.study.plain(), make, *state.run.asked)


def _place(state: Learned, choice: str, seed: int | None = None, size: int | None = None) -> Key:
    """Of an adapter whole, or cut down to so many latents."""
    return Key(choice, state.study.training.rank, state.site, seed, size=size)


def _rates(state: Learned, adapters: Adapters, written: dict[str, Written]) -> list[Estimate]:
    """Success, false positives and general loss of everything that was asked."""
    study, untouched = state.study, written[UNTOUCHED]
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
            found += rates(
                written[name], untouched, state.manner, place, near=[NEAR], beside=beside
            )
    return found


def _cut(place: Key) -> bool:
    return place.size is not None


def _kept(state: Learned, sizes: dict[str, Cut]) -> list[Estimate]:
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


def _sparsity(state: Learned, adapters: Adapters) -> list[Estimate]:
    found = []
    for name, (choice, seed) in state.study.adapters.items():
        found += sparsity_estimates(adapters.open(name), _place(state, choice, seed))
    return found


def _overlaps(state: Learned, adapters: Adapters) -> list[Estimate]:
    study, found = state.study, []
    everything = range(state.dictionary.n_latents)
    for choice in study.choices:
        supports: dict[str, dict[int, set[int]]] = {READ: {}, WRITTEN: {}}
        candidates: dict[str, dict[int, Sequence[int]]] = {READ: {}, WRITTEN: {}}
        for seed in study.seeds:
            adapter = adapters.named(choice, seed)
            among = adapters.candidates(choice, seed) or (everything, everything)
            for side, ids, own in zip(supports, adapter.support(), among, strict=True):
                supports[side][seed], candidates[side][seed] = set(ids.tolist()), own
        found += overlap_estimates(supports, candidates, _place(state, choice), study.seed)
    return found


def _facts(
    state: Learned,
    adapters: Adapters,
    written: dict[str, Written],
    sizes: dict[str, Cut],
    command: str,
) -> dict[str, Any]:
    study, (module, _) = state.study, state.model
    dictionary = state.dictionary
    named = state.run.folder / LATENTS / "latents.json"
    prompts = [(i, r) for i, r in enumerate(state.asked)]
    shown = [i for i, r in prompts if r.changed][:6] + [i for i, r in prompts if not r.changed][:4]
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
            **{name: count["used"] for name, count in state.counts.items()},
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
        "chosen": adapters.chosen,
        "choices": list(study.choices),
        "seeds": list(study.seeds),
        "most": study.measures.most,
        "share": study.measures.share,
        "losses": adapters.losses,
        "curves": adapters.curves(),
        "samples": [
            {
                "prompt": state.asked[i].prompt,
                "changed": state.asked[i].changed,
                "wanted": state.asked[i].response,
                "answers": {name: one.texts[i] for name, one in written.items()},
            }
            for i in shown
        ],
        "latents": read_json(named),
        "warnings": _warnings(state, sizes),
        "command": command,
        "settings": study.plain(),
        "versions": versions(),
    }


def _left_out(state: Learned) -> list[dict[str, Any]]:
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
        for name, count in state.counts.items()
    ]


def _warnings(state: Learned, sizes: dict[str, Cut]) -> list[str]:
    failed = [s for s in state.study.seeds if not any(sizes[adapter_name(DENSE, s)].whole)]
    if not failed:
        return []
    return [
        f"the dense adapter of seed {', '.join(map(str, failed))} shows the behaviour on none of "
        "the prompts, so nothing can be said of what is kept of it; train longer, at a higher "
        "rate, or at another site",
    ]

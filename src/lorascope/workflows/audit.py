"""The audit, step by step. Each step is a stage of the run folder; finished ones are not redone.

1. Train adapters, where the study asks for that.
2. Read the texts, leave out what the adapters have seen, split by hash.
3. Gates: adapters are live, deltas stand above numeric noise; response loss and samples.
4. Capture the base and every delta, to train on and to measure on.
5. Train dictionaries.
6. Measure, write the results table, make the report.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lorascope import report
from lorascope.activations.collect import collect, forward
from lorascope.activations.gates import noise_floor
from lorascope.activations.shards import BASE, Shards
from lorascope.activations.splits import Split, split
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import TokenBatch, Window, count_tokens, pad, windows
from lorascope.config import digest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.estimates import Estimate, Place
from lorascope.measures.behaviour import continuations, response_loss, response_losses
from lorascope.models.adapted import AdaptedModel, load
from lorascope.models.adapter_files import locate, weights_digest
from lorascope.models.gates import verify_live
from lorascope.models.load import padding_id
from lorascope.models.sites import Site, resolve_sites
from lorascope.report.result import write_estimates
from lorascope.runs import Run, read_json, versions, write_atomically
from lorascope.training.adapters import CARD
from lorascope.workflows import plan as planning
from lorascope.workflows.adapters import Base, outcomes, split_for_training, train_ranks
from lorascope.workflows.learning import bring, learn
from lorascope.workflows.measuring import Audit, measure
from lorascope.workflows.progress import Reporter
from lorascope.workflows.refusals import run_folder
from lorascope.workflows.study import AuditStudy


@dataclass
class Audited:
    """A study under way: what has been found so far, each part made when first asked for."""

    study: AuditStudy
    run: Run
    reporter: Reporter
    paths: dict[str, str] = field(default_factory=dict)
    trained: dict[str, Path] = field(default_factory=dict)

    @cached_property
    def model(self) -> AdaptedModel:
        """The model with its adapters, loaded only if a stage needs it."""
        study = self.study
        self.reporter.say(f"loading {study.model} with {', '.join(self.paths)}")
        return load(
            study.model,
            self.paths,
            revision=study.revision,
            dtype=study.dtype,
            device=study.device,
            device_map=study.device_map,
            force=study.force,
        )

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What identifies each adapter."""
        return {name: weights_digest(name, path) for name, path in self.paths.items()}

    @cached_property
    def seen(self) -> set[str]:
        """Digests of documents an adapter is known to have been trained on."""
        found: set[str] = set()
        for name, path in self.paths.items():
            folder = locate(name, path)
            if folder is not None and (folder / CARD).exists():
                found |= set(read_json(folder / CARD).get("trained_on", []))
        for source in self.study.texts.seen:
            found |= {document.digest for document in read_documents(source)}
        return found

    @cached_property
    def texts(self) -> Split:
        """Documents to train dictionaries on and to measure on."""
        study = self.study
        documents = read_documents(study.texts.sources, study.texts.documents)
        return split(documents, study.texts.held_out, self.seen, study.seed)

    @cached_property
    def probe(self) -> list[Window]:
        """Windows to train dictionaries on."""
        return self._windows(self.texts.probe)

    @cached_property
    def held_out(self) -> list[Window]:
        """Windows to measure on."""
        return self._windows(self.texts.held_out)

    def identity(self, documents: Sequence[Document]) -> dict[str, Any]:
        """Everything activations of these documents depend on."""
        study = self.study
        return {
            "model": [study.model, study.revision, study.dtype],
            "adapters": self.hashes,
            "sites": list(study.sites),
            "capture": study.capture.plain(),
            "documents": digest([d.digest for d in documents]),
        }

    def _windows(self, documents: Sequence[Document]) -> list[Window]:
        context = min(self.study.capture.context, self.model.context_length)
        return windows(documents, self.model.tokenizer, context)


def audit(study: AuditStudy, out: Path, reporter: Reporter, command: str = "") -> Path:
    """Run or resume an audit in `out` and return the report's path.

    Raises:
        InputError: anything the user has to mend, before anything costly where that is possible.
    """
    with run_folder(out, study) as run:
        cost = planning.plan(study)
        planning.refuse_what_cannot_fit(cost, out)
        brought = bring(study, cost.d_model)
        return _audit(Audited(study, run, reporter), brought, command)


def _audit(state: Audited, brought: dict[str, Dictionary], command: str) -> Path:
    study, run, reporter = state.study, state.run, state.reporter
    _adapters(state)
    gates = _gates(state)
    probe, held_out = _capture(state)
    learned = learn(run, study, probe, brought, state.hashes, reporter)

    def make(folder: Path) -> None:
        ranks = {name: record["rank"] for name, record in gates["adapters"].items()}
        estimates = [Estimate(**_revived(record)) for record in gates["response_loss"]]
        whole = Audit(study, probe, held_out, learned, ranks, gates["noise_floor"])
        measured = measure(whole, reporter)
        write_estimates(estimates + measured.estimates, folder)
        facts = _facts(state, gates, probe, held_out, learned.facts(), command)
        facts["warnings"] += measured.warnings
        write_atomically(folder / "facts.json", json.dumps(facts, indent=1) + "\n")

    parents = ["gates", "activations/probe", "activations/held_out"]
    parents += [f"dictionaries/{key.name}" for key in learned.folders]
    run.stage("results", [study.measures.plain(), study.dictionaries.base], make, *parents)
    return report.build(run.folder)


def _adapters(state: Audited) -> None:
    study = state.study
    if study.train is None:
        state.paths = dict(study.adapters)
        return
    base = Base(study.model, study.revision, study.dtype, study.device)
    documents = split_for_training(study.train, study.seed)
    state.trained = train_ranks(state.run, base, documents, study.train.training, state.reporter)
    state.paths = {name: str(folder) for name, folder in state.trained.items()}


def _gates(state: Audited) -> dict[str, Any]:
    """What must hold before measuring, with response losses and samples; kept as one stage."""
    study = state.study

    def make(folder: Path) -> None:
        model = state.model
        sites = resolve_sites(model.n_blocks, study.sites)
        _require_tokens(state)
        state.reporter.say("gates: adapters live, numeric noise floor")
        chosen = pad(state.held_out[:8], model.tokenizer, padding_id(model.tokenizer))
        live = [
            verify_live(
                model, name, chosen.ids.to(model.device), chosen.attended.long().to(model.device)
            )
            for name in model.adapters
        ]
        _require_deltas(model, sites, chosen)
        record = {
            "live": [asdict(one) for one in live],
            "noise_floor": noise_floor(model, state.held_out, sites),
            "adapters": {name: asdict(model.info(name)) for name in model.adapters},
            "model": {
                "id": study.model,
                "parameters": model.n_parameters,
                "d_model": model.d_model,
                "blocks": model.n_blocks,
                "vocabulary": model.vocab_size,
            },
            "response_loss": [asdict(one) for one in _response_losses(state)],
            "samples": _samples(state),
        }
        write_atomically(folder / "gates.json", json.dumps(record, indent=1) + "\n")

    depends_on = [state.identity(state.texts.held_out), study.measures.samples, study.seed]
    return dict(read_json(state.run.stage("gates", depends_on, make) / "gates.json"))


def _require_tokens(state: Audited) -> None:
    tokenizer = state.model.tokenizer
    probe, held_out = (count_tokens(part, tokenizer) for part in (state.probe, state.held_out))
    planning.require_tokens(state.study, probe, held_out, len(state.texts.held_out))


def _require_deltas(model: AdaptedModel, sites: Sequence[Site], batch: TokenBatch) -> None:
    """Refuse sites that an adapter does not reach, before anything is captured there."""
    base = forward(model, BASE, sites, batch)
    for name in model.adapters:
        for site, hidden in forward(model, name, sites, batch).items():
            if torch.equal(hidden, base[site]):
                raise InputError(
                    f'adapter "{name}" changes nothing at {site}: its first adapted block lies '
                    "deeper; choose deeper sites"
                )


def _response_losses(state: Audited) -> list[Estimate]:
    """Held-out response loss of every adapter; nothing where the texts have no responses."""
    found = [window for window in state.held_out if any(window.response)]
    if not found:
        return []
    model, tokens = state.model, state.study.capture.batch_tokens
    base = response_losses(model, "base", found, tokens)
    return [
        response_loss(
            base,
            response_losses(model, name, found, tokens),
            Place(adapter=name, rank=model.info(name).rank),
            state.study.seed,
        )
        for name in model.adapters
    ]


def _samples(state: Audited) -> list[dict[str, object]]:
    wanted = state.study.measures.samples
    prompted = [d for d in state.texts.held_out if d.has_response and len(d.prompt) < 1200]
    return continuations(state.model, prompted[:wanted])


def _capture(state: Audited) -> tuple[Shards, Shards]:
    found: list[Shards] = []
    for name, documents in (("probe", state.texts.probe), ("held_out", state.texts.held_out)):
        identity = state.identity(documents)

        def make(folder: Path, name: str = name, identity: Any = identity) -> None:
            chosen: list[Window] = getattr(state, name)
            sites = resolve_sites(state.model.n_blocks, state.study.sites)
            total = sum(len(window.ids) for window in chosen)
            title = f"capturing {name.replace('_', '-')} activations"
            with state.reporter.bar(title, total, "tokens") as advance:
                collect(
                    state.model,
                    chosen,
                    sites,
                    folder,
                    state.study.capture,
                    digest(identity),
                    advance=advance,
                )

        folder = state.run.stage(f"activations/{name}", identity, make)
        found.append(Shards.open(folder))
    probe, held_out = found
    if len(probe) < state.study.dictionaries.fitting.batch:
        raise InputError(
            f"{len(probe)} tokens are left to train on once special tokens and outliers are "
            "masked; give more text"
        )
    return probe, held_out


def _revived(record: dict[str, Any]) -> dict[str, Any]:
    from lorascope.estimates import Chance

    return {
        **record,
        "interval": tuple(record["interval"]),
        "chances": tuple(Chance(**chance) for chance in record["chances"]),
        "place": Place(**record["place"]),
    }


def _facts(
    state: Audited,
    gates: dict[str, Any],
    probe: Shards,
    held_out: Shards,
    dictionaries: list[dict[str, Any]],
    command: str,
) -> dict[str, Any]:
    """Everything the report says that is not an estimate."""
    counts = {
        name: {
            "documents": shards.manifest["documents"],
            "tokens": len(shards),
            "special": shards.manifest["special"],
            "outliers": shards.manifest["outliers"],
        }
        for name, shards in (("probe", probe), ("held_out", held_out))
    }
    adapters = [
        {
            key: record[key]
            for key in ("name", "rank", "alpha", "path", "sha256", "base", "dora", "rslora")
        }
        | {"parameters": record["n_parameters"]}
        for record in gates["adapters"].values()
    ]
    return {
        "model": gates["model"],
        "adapters": adapters,
        "tokens": counts,
        "sites": probe.sites,
        "gates": _gate_lines(state, gates, probe, held_out),
        "warnings": _warnings(state, gates, probe),
        "adapter_training": outcomes(state.trained),
        "samples": gates["samples"],
        "dictionaries": dictionaries,
        "command": command,
        "versions": versions(),
        "seconds": state.run.seconds(),
        "settings": state.study.plain(),
    }


def _gate_lines(
    state: Audited, gates: dict[str, Any], probe: Shards, held_out: Shards
) -> list[dict[str, Any]]:
    lines = [
        {
            "gate": f"adapter {one['name']} is live",
            "passed": True,
            "detail": f"largest logit difference {one['max_logit_difference']:.3g}; mean delta "
            f"norm after the last block {one['delta_norm']:.3g}",
        }
        for one in gates["live"]
    ]
    lines.append(
        {
            "gate": "base restored",
            "passed": True,
            "detail": "with adapters off the logits equal the bare model's bit for bit",
        }
    )
    floors = ", ".join(f"{site} {value:.2g}" for site, value in gates["noise_floor"].items())
    lines.append({"gate": "numeric noise floor", "passed": True, "detail": floors})
    lines.append(
        {
            "gate": "disjoint rows",
            "passed": True,
            "detail": f"{state.texts.excluded} documents the adapters had seen were left out; "
            "training and held-out documents are split by hash",
        }
    )
    for name, shards in (("training", probe), ("held-out", held_out)):
        manifest = shards.manifest
        lines.append(
            {
                "gate": f"masked {name} tokens",
                "passed": True,
                "detail": f"{manifest['special']} special, {manifest['outliers']} outliers "
                f"of {manifest['rows']} others",
            }
        )
    return lines


def _warnings(state: Audited, gates: dict[str, Any], probe: Shards) -> list[str]:
    found = []
    unknown = [
        name
        for name, path in state.paths.items()
        if (folder := locate(name, path)) is None or not (folder / CARD).exists()
    ]
    if unknown and not state.study.texts.seen:
        found.append(
            f"{', '.join(unknown)}: what it was trained on is unknown, so leakage cannot be "
            "excluded; name its training texts with texts.seen"
        )
    share = probe.manifest["outliers"] / max(1, probe.manifest["rows"])
    if share > 0.01:
        found.append(f"{share:.1%} of the tokens were masked as outliers of the base norm")
    for one in gates["live"]:
        floor = max(gates["noise_floor"].values())
        if one["delta_norm"] < 3 * floor:
            found.append(f"{one['name']}: the delta is within 3 times the numeric noise floor")
    return found

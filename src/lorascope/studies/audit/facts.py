"""What a report says beside its estimates: model, adapters, sanity checks, warnings, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorascope.activations.matching import LARGEST, Match
from lorascope.activations.shards import Shards
from lorascope.embedded import is_embedded
from lorascope.models.adapter_files import locate
from lorascope.models.sanity_checks import LIVE, NOISE, RESTORED
from lorascope.results.null_names import NOISE_FLOOR
from lorascope.runs import command_of, versions
from lorascope.studies.audit.defaults import EMBEDDED
from lorascope.studies.audit.plan import smaller_batches
from lorascope.studies.audit.state import Audited
from lorascope.training.adapters import CARD
from lorascope.workflows.adapters import outcomes
from lorascope.workflows.left_out import left_out, of_texts, text_counts, text_warnings


def facts(
    state: Audited, dictionaries: list[dict[str, Any]], stages: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything the report says that is not an estimate.

    Args:
        dictionaries: a record of each that was trained.
        stages: what made each stage.
    """
    checks, probe, held_out = state.sanity_checks, state.probe_rows, state.held_out_rows
    counts = {
        name: {
            "documents": shards.manifest["documents"],
            "tokens": len(shards),
            "special": shards.manifest["special"],
            "written_special": shards.manifest["written_special"],
            "outliers": shards.manifest["outliers"],
        }
        for name, shards in (("probe", probe), ("held_out", held_out))
    }
    texts = text_counts(state.texts)
    adapters = [
        {
            key: record[key]
            for key in ("name", "rank", "alpha", "path", "sha256", "base", "dora", "rslora")
        }
        | {"parameters": record["n_parameters"], "group": state.study.groups[record["name"]]}
        for record in checks["adapters"].values()
    ]
    return {
        "model": checks["model"],
        "adapters": adapters,
        "tokens": counts,
        "texts": texts,
        "left_out": [of_texts(texts), *_tokens_left_out(probe, held_out)],
        "sites": probe.sites,
        "sanity_checks": _check_lines(state, checks, probe, held_out),
        "warnings": _warnings(state, checks, probe),
        "adapter_training": outcomes(state.trained),
        "samples": checks["samples"],
        "dictionaries": dictionaries,
        "command": command_of(state.folder),
        "versions": versions(),
        "seconds": {name: one["seconds"] for name, one in stages.items()},
        "made_from": {name: one["key"] for name, one in stages.items()},
        "settings": state.study.plain(),
    }


def _tokens_left_out(probe: Shards, held_out: Shards) -> list[dict[str, Any]]:
    """Special tokens and outliers are captured, counted and not used."""
    return [
        left_out(
            f"{name} tokens",
            len(shards),
            {
                "special": shards.manifest["special"],
                "outliers of the base norm": shards.manifest["outliers"],
            },
        )
        for name, shards in (("training", probe), ("held-out", held_out))
    ]


def _check_lines(
    state: Audited, checks: dict[str, Any], probe: Shards, held_out: Shards
) -> list[dict[str, Any]]:
    lines = [
        {
            "id": LIVE,
            "adapter": one["name"],
            "check": f"adapter {one['name']} is live",
            "passed": True,
            "detail": f"largest logit difference {one['max_logit_difference']:.3g}; mean delta "
            f"norm after the last block {one['delta_norm']:.3g}",
        }
        for one in checks["live"]
    ]
    lines.append(
        {
            "id": RESTORED,
            "check": "base restored",
            "passed": True,
            "detail": "with adapters off the logits equal the bare model's bit for bit",
        }
    )
    lines += [
        {
            "check": f"base of adapter {name}",
            "passed": True,
            "detail": f"{compared} (compared since the names differ)",
        }
        for name, record in checks["adapters"].items()
        if (compared := record.get("base_compared"))
    ]
    floors = ", ".join(f"{site} {value:.2g}" for site, value in checks["noise_floor"].items())
    lines.append({"id": NOISE, "check": NOISE_FLOOR, "passed": True, "detail": floors})
    lines.append(_disjoint(state))
    lines += _rendered(state)
    for name, shards in (("training", probe), ("held-out", held_out)):
        manifest = shards.manifest
        lines.append(
            {
                "check": f"masked {name} tokens",
                "passed": True,
                "detail": f"{manifest['special']} special"
                f"{_spelled(manifest['written_special'])}, {manifest['outliers']} outliers "
                f"of {manifest['rows']} others",
            }
        )
    return lines


def _rendered(state: Audited) -> list[dict[str, Any]]:
    """How conversations and instructions among the texts were put into words."""
    documents = [*state.texts.probe, *state.texts.held_out]
    templated = sum(bool(document.messages) for document in documents)
    answered = sum(document.has_response for document in documents)
    if not answered:
        return []
    has_one = state.shape.tokenizer.chat_template is not None
    if templated and has_one:
        detail = f"{templated} of {len(documents)} documents go through the tokenizer's template"
    elif has_one:
        detail = (
            "the tokenizer has one and no document goes through it: instructions stand in Alpaca's "
            "words; texts.template: chat puts them through it"
        )
    else:
        detail = "the tokenizer has none: turns stand under plain headings"
    return [{"check": "chat template", "passed": True, "detail": detail}]


def _spelled(count: int) -> str:
    """Texts may spell special tokens themselves; they are read as these tokens, BOS not twice."""
    return f" (the texts spell {count} themselves)" if count else ""


def _disjoint(state: Audited) -> dict[str, Any]:
    texts = state.texts
    if texts.overlap:
        detail = (
            f"{texts.overlap} of {len(texts.probe)} documents dictionaries are trained on had been "
            "seen by the adapters (texts.keep_seen); none of those measured on had"
        )
    else:
        apart = "are of different sources" if state.study.texts.measure_on else "are split by hash"
        detail = (
            f"{texts.excluded} documents the adapters had seen were left out; training and "
            f"held-out documents {apart}"
        )
    return {"check": "disjoint rows", "passed": not texts.overlap, "detail": detail}


def _warnings(state: Audited, checks: dict[str, Any], probe: Shards) -> list[str]:
    found = text_warnings(state.texts)
    found += smaller_batches(state.study, probe.manifest["rows"])
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
    texts, model = state.study.texts, state.study.model
    if texts.sources == (EMBEDDED,) and not is_embedded(model):
        found.append(
            "the texts are the package's own instructions, not such as the adapter was made for: "
            "what it does there may be little of what it does; give --texts"
        )
    if stored := checks["model"].get("stored"):
        found.append(
            f"the base's weights are rounded ({stored}): it is the base of an adapter that was "
            "trained on another precision only up to that rounding"
        )
    share = probe.manifest["outliers"] / max(1, probe.manifest["rows"])
    if share > 0.01:
        found.append(f"{share:.1%} of the tokens were masked as outliers of the base norm")
    for one in checks["live"]:
        floor = max(checks["noise_floor"].values())
        if one["delta_norm"] < 3 * floor:
            found.append(f"{one['name']}: the delta is within 3 times the numeric noise floor")
    if state.study.controls.null_adapters:
        found.extend(
            f"{reason}; no verdict on it has a random adapter as its rival"
            for reason in checks.get("without_null", {}).values()
        )
    for name, record in checks["matches"].items():
        match = Match(**record)
        if not match.reached:
            found.append(
                f"{name}: no factor from {1 / LARGEST:.3g} to {LARGEST:g} makes its delta as large "
                f"as the adapter's; with {match.factor:g} it is {match.ratio:.2g} times as large"
            )
    return found

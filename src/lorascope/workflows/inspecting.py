"""What a dictionary is, and how it does on some texts: `lorascope dictionary`.

1. Describe it from its tensors and its card.
2. On request, capture the stream (or a delta) at its site as an audit does, special tokens and
   outliers masked, and measure reconstruction and firing there, each beside what predicts nothing.
3. Complain where it does not do what it was made for: wrong site, missing scale, wrong gate.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from rich.table import Table
from rich.text import Text
from torch import Tensor

from lorascope.activations.collect import collect
from lorascope.activations.shards import BASE, Shards
from lorascope.activations.sources import RecordTally
from lorascope.activations.text import read_documents
from lorascope.activations.tokens import Window, count_tokens, windows
from lorascope.config import digest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.groupmax import GroupMaxDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.places import block_of
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError
from lorascope.latent_adapters.loading import load
from lorascope.measures.firing import firing, firing_estimates
from lorascope.measures.reconstruction import errors
from lorascope.measures.rows import by_document, shared_out
from lorascope.models import dimensions
from lorascope.models.adapted import AdaptedModel
from lorascope.models.load import read_config
from lorascope.models.sites import Site, resolve_sites
from lorascope.randomness import generator
from lorascope.report.formatting import interval, number
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import ZERO
from lorascope.stats.documents import ratio
from lorascope.workflows.settings import OnTexts

ADAPTER = "adapter"
# Above these a dictionary does not do what it was made for.
WORST_FVU, WORST_L0_RATIO = 0.9, 2.0


def describe(dictionary: Dictionary) -> dict[str, Any]:
    """What a dictionary is, as plain data: sizes, gate, decoder norms, and what its card says."""
    card = dictionary.card
    facts: dict[str, Any] = {
        "address": card.source,
        "format": card.format,
        "architecture": dictionary.architecture,
        "n_latents": dictionary.n_latents,
        "d_model": dictionary.d_model,
        "site": card.site,
        "model": card.model,
        "target": card.target,
        "adapter": card.adapter,
        "scale": card.scale,
        "subtract_bias": dictionary.subtract_bias,
        "decoder_norms": _spread(dictionary.directions.norm(dim=1)),
        "stated_l0": card.l0 or None,
        "neuronpedia": card.neuronpedia,
        "note": card.note,
    }
    if isinstance(dictionary, TopKDictionary | GroupMaxDictionary):
        facts["k"] = dictionary.k
    if isinstance(dictionary, JumpReluDictionary):
        facts["threshold"] = _spread(dictionary.threshold)
    return facts


def try_on(dictionary: Dictionary, wanted: OnTexts) -> dict[str, Any]:
    """FVU, relative error, density and dead share on texts, as plain data.

    Raises:
        InputError: the dictionary is for another model, site, width or adapter, its site is no
            block's output, or the texts are too short.
    """
    site = _site(dictionary, wanted)
    adapters = {ADAPTER: wanted.adapter} if wanted.adapter else {}
    config = read_config(wanted.model)
    resolved = resolve_sites(dimensions.blocks(config), [site])[0]
    dictionary.card.require(
        model=wanted.model,
        site=resolved.name,
        d_model=dimensions.width(config),
        force=wanted.force,
    )
    model = load(wanted.model, adapters, device=wanted.device, force=wanted.force)
    _require_adapter(dictionary, model, wanted)
    rows, documents, masked = _rows(model, resolved, wanted)
    place = Key(site=resolved.name, dictionary=dictionary.card.target)
    found = list(_estimates(dictionary, rows, documents, place))
    return {
        "model": wanted.model,
        "site": resolved.name,
        "rows_are": "h_adapted − h_base" if wanted.adapter else "h_base",
        "adapter": wanted.adapter,
        "texts": list(wanted.texts),
        "tokens": len(rows),
        "documents": len(documents.unique()),
        **masked,
        "estimates": [_plain(one) for one in found],
    }


def complaints(facts: dict[str, Any]) -> list[str]:
    """Lines for a person where a dictionary, described and tried, looks wrongly opened or used."""
    values = {one["measure"]: one["value"] for one in facts.get("tried", {}).get("estimates", [])}
    found = []
    if values.get("fvu", 0.0) > WORST_FVU:
        found.append(
            f"FVU {values['fvu']:.3g} is above {WORST_FVU}: these rows are hardly reconstructed; "
            "another model, site or scale than it was made for?"
        )
    stated, measured = facts.get("k") or facts["stated_l0"], values.get("density")
    if stated and measured is not None:
        ratio = max(measured, 1e-9) / stated
        if not 1 / WORST_L0_RATIO <= ratio <= WORST_L0_RATIO:
            found.append(
                f"{measured:.3g} latents are active a token and its makers state {stated:g}: "
                "another model, site or scale than it was made for?"
            )
    return found


def tables(facts: dict[str, Any]) -> Iterator[Table]:
    """What was found, for a terminal: the description, and the numbers on texts if there are."""
    described = Table(show_header=False, box=None)
    described.add_column(no_wrap=True)
    described.add_column(overflow="fold")
    for what, much in _description(facts):
        described.add_row(what, Text(much))
    yield described
    if "tried" not in facts:
        return
    tried = facts["tried"]
    title = f"{tried['rows_are']} at {tried['site']}, {tried['tokens']:,} tokens"
    numbers = Table(title=Text(title), title_justify="left")
    for heading in ("", "value", "95 % interval", "where there is nothing"):
        numbers.add_column(heading)
    for one in tried["estimates"]:
        low, high = (math.nan if bound is None else bound for bound in one["interval"])
        nothing = "; ".join(f"{name} {number(level)}" for name, level in one["references"].items())
        value = number(one["value"])
        numbers.add_row(_TITLES[one["measure"]], value, Text(interval(low, high)), nothing)
    yield numbers


def _description(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, how much), what is unknown left out."""
    norms = facts["decoder_norms"]
    lines = [
        ("address", facts["address"]),
        ("format", facts["format"]),
        ("architecture", facts["architecture"]),
        ("latents", f"{facts['n_latents']:,}"),
        ("width", f"{facts['d_model']:,}"),
        ("site", facts["site"] or "not said"),
        ("model", facts["model"] or "not said"),
        ("trained on", " of ".join(p for p in (facts["target"], facts["adapter"]) if p)),
        ("scale folded in", f"{facts['scale']:.4g}"),
        ("decoder bias", "subtracted from the input" if facts["subtract_bias"] else "added only"),
        ("decoder norms", _spread_line(norms)),
    ]
    if "threshold" in facts:
        lines.append(("threshold", _spread_line(facts["threshold"])))
    if "k" in facts:
        lines.append(("k", str(facts["k"])))
    elif facts["stated_l0"]:
        lines.append(("L0 as stated", f"{facts['stated_l0']:g}"))
    lines += [(key, facts[key]) for key in ("neuronpedia", "note") if facts[key]]
    return lines


_TITLES = {
    "fvu": "FVU",
    "relative_error": "relative error",
    "density": "L0, latents/token",
    "dead_share": "dead share",
}


def _site(dictionary: Dictionary, wanted: OnTexts) -> str:
    said = dictionary.card.site
    if wanted.site:
        return wanted.site
    if block_of(said) is None:
        what = f"reads {said}, which is no block's output" if said else "does not say what it reads"
        raise InputError(
            f"dictionary {dictionary.card.source}: {what}; name the site to try it at with --site"
        )
    return said


def _require_adapter(dictionary: Dictionary, model: AdaptedModel, wanted: OnTexts) -> None:
    """A dictionary of deltas is tried on deltas, of the adapter it was trained on."""
    card = dictionary.card
    if card.target == "delta" and not wanted.adapter:
        raise InputError(
            f"dictionary {card.source}: trained on what adapter {card.adapter or '(unnamed)'} "
            "adds to the stream; give that adapter with --adapter"
        )
    if wanted.adapter and card.adapter_sha256 and not wanted.force:
        given = model.info(ADAPTER).sha256
        if given != card.adapter_sha256:
            raise InputError(
                f"dictionary {card.source}: trained on adapter {card.adapter} with SHA-256 "
                f"{card.adapter_sha256[:12]}…, {wanted.adapter} has {given[:12]}…; give the one "
                "it was trained on, or --force"
            )


def _rows(
    model: AdaptedModel, site: Site, wanted: OnTexts
) -> tuple[Float[Tensor, "rows d"], Int[Tensor, " rows"], dict[str, int]]:
    """Captured rows in document order, the document of each, and how many were masked."""
    tally = RecordTally()
    documents = read_documents(wanted.texts, wanted.rows, tally)
    context = min(wanted.capture.context, model.context_length)
    chosen = _enough(windows(documents, model.tokenizer, context), model, wanted.rows)
    variant = ADAPTER if wanted.adapter else BASE
    with tempfile.TemporaryDirectory(prefix="lorascope-") as folder:
        identity = digest([model.id, wanted.plain()])
        collect(model, chosen, [site], Path(folder), wanted.capture, identity)
        shards = Shards.open(Path(folder))
        origin = shards.tokens().document
        order = torch.argsort(origin, stable=True)
        order = order[shared_out(origin[order], wanted.rows, generator(0, "stretch"))]
        rows = shards.load(site.name, variant)[order]
        counted = ("special", "written_special", "outliers")
        masked = {key: int(shards.manifest[key]) for key in counted}
        masked |= {f"records_{name}": count for name, count in asdict(tally).items()}
    if len(rows) < 2:
        raise InputError(f"{', '.join(wanted.texts)}: {len(rows)} token is left; give longer texts")
    return rows, origin[order], masked


def _enough(found: list[Window], model: AdaptedModel, rows: int) -> list[Window]:
    """The first windows that together hold as many tokens as are wanted."""
    chosen: list[Window] = []
    count = 0
    for window in found:
        chosen.append(window)
        count += count_tokens([window], model.tokenizer)
        if count >= rows:
            break
    return chosen


def _estimates(
    dictionary: Dictionary,
    rows: Float[Tensor, "rows d"],
    documents: Int[Tensor, " rows"],
    place: Key,
) -> Iterator[Estimate]:
    mean = rows.mean(dim=0)
    found = errors(dictionary, rows, documents)
    by_mean = errors(mean.expand_as, rows, documents)
    left, counts = by_document(found.residuals.double().square(), documents)
    spread, _ = by_document(by_mean.residuals.double().square(), documents)
    unexplained, around = ratio(left, spread, counts)
    yield Estimate(
        "fvu",
        unexplained,
        around,
        len(rows),
        "share",
        (Null.exact("mean predictor", 1.0),),
        place,
    )
    yield Estimate(
        "relative_error",
        found.mean,
        found.mean_interval,
        len(rows),
        "ratio",
        (Null.exact(ZERO, 1.0), Null.exact("mean predictor", by_mean.mean)),
        place,
    )
    yield from firing_estimates(dictionary, firing(dictionary, rows), rows, documents, place)


def _plain(found: Estimate) -> dict[str, Any]:
    bounds = [None if math.isnan(bound) else bound for bound in found.interval]
    return {
        "measure": found.measure,
        "value": found.value,
        "interval": bounds,
        "n": found.n,
        "unit": found.unit,
        "references": {chance.name: chance.level for chance in found.nulls},
    }


def _spread(values: Float[Tensor, " n"]) -> dict[str, float]:
    return {"min": values.min().item(), "mean": values.mean().item(), "max": values.max().item()}


def _spread_line(spread: dict[str, float]) -> str:
    low, mean, high = (f"{spread[key]:.4g}" for key in ("min", "mean", "max"))
    return low if low == high else f"{low} to {high}, mean {mean}"

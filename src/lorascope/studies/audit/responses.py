"""Response losses of an audit's variants: taken in the passes that capture held-out activations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from lorascope.activations.shards import BASE
from lorascope.activations.tokens import Window
from lorascope.measures.behaviour import VariantLosses, response_loss
from lorascope.models.adapted import AdaptedModel
from lorascope.results import Estimate
from lorascope.runs import read_json, write_json
from lorascope.studies.audit.variants import key_of

_FILE = "response_loss.json"


def losses_of(found: list[Window]) -> VariantLosses:
    """An empty place for the losses of these windows' documents."""
    return VariantLosses(max((w.document for w in found if any(w.response)), default=-1) + 1)


def write_losses(losses: VariantLosses, model: AdaptedModel, folder: Path) -> None:
    """Every adapter's loss beside the base's; nothing where the texts have no responses."""
    base = losses.of(BASE)
    every = (*model.adapters, *model.null_adapters) if bool(base[1].any()) else ()
    found = [response_loss(base, losses.of(name), key_of(model.info(name))) for name in every]
    records = [asdict(one) for one in found]
    write_json(folder / _FILE, records)


def read_losses(folder: Path) -> list[Estimate]:
    """What `write_losses` left."""
    return [Estimate.revived(record) for record in read_json(folder / _FILE)]

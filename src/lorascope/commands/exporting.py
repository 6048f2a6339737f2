"""The command that writes what the tools of other environments open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorascope.commands.dictionaries import Address
from lorascope.errors import InputError
from lorascope.printing import say

if TYPE_CHECKING:
    from lorascope.dictionaries.dictionary import Dictionary


def export(
    dictionary: Address,
    out: Annotated[Path, typer.Option("--out", help="A new or empty folder.")],
    model: Annotated[
        str | None, typer.Option(help="Base model; by default the one the dictionary names.")
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(help="PEFT adapter, or a fit of LoRA alone; it is merged into the weights."),
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Where it reads; by default what the dictionary says.")
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(help="What latents are shown on: file, folder, dataset id. Repeatable."),
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="How many sequences.")] = 256,
    tokens: Annotated[int, typer.Option(min=4, help="Tokens of each.")] = 64,
    features: Annotated[int, typer.Option(min=1, help="Most latents to show.")] = 64,
    name: Annotated[
        str, typer.Option(help="What TransformerLens and Neuronpedia call the model.")
    ] = "",
) -> None:
    """Write a dictionary and its model for SAEDashboard, Neuronpedia and SAEBench.

    These need environments of their own. The folder has the checkpoint with the adapter merged,
    the dictionary in SAELens layout, the tokens, and scripts; `python OUT/dashboard.py` writes
    SAEDashboard's pages and Neuronpedia's file there, and stops where it would compute something
    else than lorascope. A dictionary of deltas is shown on adapted minus base, which it reads.

    **Examples**

    `lorascope export runs/mine/dictionaries/layers.5-delta-mine-seed0 --adapter ./my-lora
    --out out/delta`

    `lorascope export runs/mine/dictionaries/layers.5-base-seed0 --out out/base`
    """
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out}: holds something already; give a new folder")
    from lorascope.dictionaries.addresses import require_there
    from lorascope.studies import missing

    require_there(dictionary)
    missing.in_export(model, adapter, texts or (), out)
    from lorascope.studies.evaluate.dashboards import SCRIPT, ShownTexts
    from lorascope.studies.evaluate.handover import hand_over

    found, known, place = _placed(dictionary, model, site)
    shown = ShownTexts(tuple(texts or ("embedded",)), sequences, tokens, features)
    folder = hand_over(known, found, place, out, adapter=adapter, name=name, texts=shown)
    say(f"{folder}: in an environment with sae-dashboard 0.8.0: python {folder / SCRIPT}")


def _placed(address: str, model: str | None, site: str | None) -> tuple[Dictionary, str, str]:
    """The dictionary, its model, and the site that it reads; refuses one made for others."""
    from lorascope.dictionaries.files import open_dictionary
    from lorascope.models.sites import parse_site

    asked = None if site is None else parse_site(site).name
    found = open_dictionary(address, asked)
    known, place = model or found.card.model, found.card.site
    if not known:
        raise InputError(f"{address} does not say which model it is for: give --model")
    if not place:
        raise InputError(f"{address} does not say where it reads: give --site")
    found.card.require(model=known, site=asked or place, force=None)
    return found, known, place

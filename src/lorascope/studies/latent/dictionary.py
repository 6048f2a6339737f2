"""The dictionary of a latent study: trained on the model's stream at the site, or brought along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.mixing import TensorRows
from lorascope.activations.tokens import batches, require_rows, windows
from lorascope.config import digest
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import save
from lorascope.errors import InputError
from lorascope.fits.wrapper import identity as identity_of
from lorascope.latent_adapters.reading import BATCH_TOKENS, FrozenSite
from lorascope.models.hooks import run_until
from lorascope.models.load import padding_id
from lorascope.models.sites import resolve_sites
from lorascope.runs import versions
from lorascope.stages import Stage, Work, stage
from lorascope.studies.latent.state import LatentRun
from lorascope.studies.latent.study import LatentStudy
from lorascope.training.dictionaries import fit
from lorascope.workflows.run_dictionaries import note_brought
from lorascope.workflows.tracking import trackers

# What training reads of the study.
_SETTINGS = ("model", "seed", "train_dictionary")


@stage(version=1, title="training a dictionary")
def train(
    work: Work, *, study: LatentStudy, identity: dict[str, Any], site: str, texts: str
) -> None:
    """Train a dictionary on the model's stream.

    Args:
        identity: what everything depends on.
        texts: digest of the general texts.

    Raises:
        InputError: model, records or texts have been replaced since the study was read.
    """
    state: LatentRun = work.state
    state.require(identity)
    if text_digest(state) != texts:
        where = ", ".join(study.train_dictionary.texts)
        raise InputError(f"{where}: has changed since the study was read; run it again")
    own = study.train_dictionary
    rows = _rows(work, site, own.on_behaviour)
    work.reporter.say(f"training a dictionary on {len(rows):,} tokens at {site}")
    card = Card(target="base", site=site, model=study.model, d_model=rows.shape[1])
    card = card.model_copy(update={"versions": versions()})
    with trackers(work) as looking:
        trained = fit(
            own.architecture,
            TensorRows(rows),
            fitting=own.fitting,
            seed=study.seed,
            card=card,
            device=str(state.model[0].device),
            observers=looking,
        )
    save(trained, work.folder)


def stages(state: LatentRun) -> Iterator[Stage]:
    """The dictionary's one stage."""
    study, site = state.study, state.site
    if study.dictionary is not None:
        content = identity_of(state.brought[site])
        brought = {"site": site, "address": study.dictionary, "content": content}
        yield Stage(state.dictionary_at, note_brought, brought)
        return
    arguments = {"study": study.only(*_SETTINGS), "identity": state.identity, "site": site}
    arguments["texts"] = text_digest(state)
    yield Stage(state.dictionary_at, train, arguments)


def reading_of(work: Work) -> FrozenSite:
    """Model, site and dictionary, for a stage that reads the dictionary.

    Raises:
        LookupError: the dictionary is not among the stage's inputs.
    """
    state: LatentRun = work.state
    work.input(state.dictionary_at)
    return state.reading


def text_digest(state: LatentRun) -> str:
    """What identifies the general texts."""
    return digest([document.digest for document in state.texts])


@torch.no_grad()
def _rows(work: Work, site: str, on_behaviour: bool) -> Float[Tensor, "rows d"]:
    """The stream at the site on the texts the dictionary is trained on."""
    state: LatentRun = work.state
    module, tokenizer = state.model
    found = windows(state.texts, tokenizer, state.context)
    if on_behaviour:
        found += state.windows(state.behaviour.part("train"))
    require_rows(found, module, tokenizer)
    (place,) = resolve_sites(module, [site])
    rows = []
    with work.reporter.bar("reading texts", len(found), "windows") as advance:
        for batch in batches(found, tokenizer, padding_id(tokenizer), BATCH_TOKENS):
            ids, mask = batch.inputs(module.device)
            stream = run_until(module, [place], ids, mask)[place]
            rows.append(stream[batch.kept.to(stream.device)].float().cpu())
            advance(len(ids))
    return torch.cat(rows)

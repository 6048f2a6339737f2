"""Dictionaries to compare adapting with, trained on one model's stream (sections 3.1, 3.2 and 4.2).

`train_streamed` makes a TopK dictionary by reconstruction, on rows the model computes as they are
needed; `train_end_to_end` one with the same activation by KL(ŷ, y) through the rest of the model.
Both save it during training, with the wall clock and the tokens it has taken so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.activations.mixing import TensorRows
from lorascope.activations.scaling import mean_norm
from lorascope.activations.streamed import StreamedRows
from lorascope.activations.tokens import Window
from lorascope.config import digest
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.fits.parts import TunedPart
from lorascope.fits.preparing import Marks, plan, recomputing, special_ids, still
from lorascope.fits.run import Fit, Passes
from lorascope.fits.settings import Learning, Tuned
from lorascope.models.freezing import fingerprint
from lorascope.outputs.splicing import Splice, spliced
from lorascope.randomness import generator
from lorascope.runs import versions
from lorascope.training.architectures import TopK
from lorascope.training.dictionaries import Job, fit_many
from lorascope.training.loop import History, Observer
from lorascope.training.schedules import warmup_hold_decay
from lorascope.training.settings import Fitting
from lorascope.training.snapshots import Saving, SnapshotKeeper
from lorascope.training.starts import SAMPLE, start

# Rows held in memory and mixed.
MIXED = 2**16
END_TO_END = "trained end to end by KL"


class EndToEnd(Learning):
    """How an end-to-end dictionary is trained.

    Attributes:
        rate: AdamW's peak learning rate.
    """

    rate: float = Field(default=1e-3, gt=0)


def train_streamed(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    site: str,
    training: Sequence[Window],
    architecture: TopK,
    fitting: Fitting,
    *,
    tokens: int,
    model: str,
    seed: int = 0,
    saving: Saving | None = None,
    checkpoint: Path | None = None,
    observers: Sequence[Observer] = (),
    mixed: int = MIXED,
) -> tuple[Dictionary, History]:
    """A TopK dictionary trained to reconstruct the stream at `site`; activations are not stored.

    Args:
        module: the bare base model; it is left as it was.
        training: the text; read again from the beginning where it holds fewer tokens than asked.
        fitting: batch, rate and clip; its epochs are set aside for `tokens`.
        tokens: rows to train on, rounded up to whole batches.
        model: its id, for the card.
        seed: decides starting directions and the order of rows.
        saving: where and when to save it during training.
        checkpoint: file to keep the run's state in; a run that was stopped goes on from it.
        mixed: rows held in memory and mixed with one another.

    Returns:
        The dictionary, and the history of its steps.

    Raises:
        InputError: an unknown site, or too little text.
    """
    with still(module):
        begun = perf_counter()
        rows = StreamedRows(module, tokenizer, site, training)
        sample = rows.sample(SAMPLE)
        job = Job(
            architecture,
            seed,
            _card(model, rows),
            checkpoint,
            observers,
            saving and replace(saving, before=saving.before + perf_counter() - begun),
        )
        length = fitting.model_copy(update={"epochs": tokens / len(rows)})
        device = str(module.get_input_embeddings().weight.device)
        (found,) = fit_many([job], rows, length, sample=sample, window=mixed, device=device)
    return found


def train_end_to_end(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    site: str,
    training: Sequence[Window],
    architecture: TopK,
    settings: EndToEnd,
    *,
    model: str,
    held_out: Sequence[Window] = (),
    evaluations: int = 0,
    saving: Saving | None = None,
    checkpoint: Path | None = None,
    observers: Sequence[Observer] = (),
) -> tuple[Dictionary, History]:
    """A TopK dictionary trained on KL(ŷ, y) with ŷ what the model predicts through it.

    Gradients pass the k largest latents of each token; there is no reconstruction term, and latents
    that die are not revived. It starts as `train_streamed` would start it; arguments as there.

    Args:
        settings: `tokens` is the budget of tokens whose prediction is compared.
        held_out: text to note KL and loss on, `evaluations` times.

    Returns:
        The dictionary, and the history of its steps: kl, tokens and seconds.

    Raises:
        InputError: an unknown site, too little text, or a budget smaller than one step.
        RuntimeError: the model's weights changed.
    """
    steps = plan(training, tokenizer, settings)
    before, begun = fingerprint(module), perf_counter()
    with still(module), ExitStack() as stack:
        special = special_ids(tokenizer, settings)
        rows = StreamedRows(module, tokenizer, site, training, keep_special=not special)
        going, splice = _put_on(stack, module, rows, architecture, settings, special, model)
        texts, parts, looking = (training, held_out), [going.part], list(observers)
        given = (parts, *texts, steps, settings, evaluations)
        run = Fit(module, tokenizer, splice, *given, passes=Passes(rows.site))
        if saving is not None:
            timed = replace(saving, before=saving.before + perf_counter() - begun)
            keeper = SnapshotKeeper(
                timed, len(steps), run.history, partial(going.now, run), partial(_tokens, run)
            )
            looking.append(keeper)
        windows = [window.ids for window in training]
        key = [architecture.plain(), settings.plain(), str(run.products), before, windows, site]
        run.go(looking, checkpoint, digest(key), warmup_hold_decay())
        found = going.now(run)
    Marks(before, {}).require_equal(Marks.of(module, {}))
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return found, run.history


@dataclass(frozen=True, eq=False)
class _Going:
    """An end-to-end dictionary in training, the only part of its fit."""

    part: TunedPart
    card: Card

    def now(self, run: Fit) -> Dictionary:
        """As it is after the steps done."""
        (tuned,) = self.part.fitted.values()
        found = tuned.finished().cpu()
        tokens = _tokens(run, len(run.history.records))
        found.card = self.card.model_copy(update={"tokens": tokens})
        return found


def _tokens(run: Fit, steps: int) -> int:
    """Tokens whose prediction was compared in the first steps."""
    return int(sum(run.history.series("tokens")[:steps]))


def _put_on(
    stack: ExitStack,
    module: PreTrainedModel,
    rows: StreamedRows,
    architecture: TopK,
    settings: EndToEnd,
    special: tuple[int, ...],
    model: str,
) -> tuple[_Going, Splice]:
    """A fresh dictionary at the site, all of it fitted, until `stack` is left."""
    first, scale = _first(rows.sample(SAMPLE), architecture, settings.seed)
    stack.enter_context(recomputing(module, settings.recompute))
    splice = stack.enter_context(spliced(module, {rows.site: first}, special_ids=special))
    tuned = Tuned(rate=settings.rate, encoder=True)
    part = stack.enter_context(TunedPart.on(splice, tuned, {rows.site: scale}))
    facts = {**architecture.plain(), **settings.plain()}
    card = _card(model, rows).model_copy(
        update={"seed": settings.seed, "scale": scale, "settings": facts, "note": END_TO_END}
    )
    return _Going(part, card), splice


def _first(sample: TensorRows, architecture: TopK, seed: int) -> tuple[Dictionary, float]:
    """The dictionary before its first step, and the sample's mean norm."""
    try:
        scale = mean_norm(sample.chunks())
    except ValueError as error:
        raise InputError(f"{error}: there is nothing to train on") from None
    random = generator(seed, "start")
    begun = start(architecture, sample, scale, random).to(sample.rows.device)
    objective = architecture.objective(begun)
    objective.calibrate(sample.rows / scale)
    return objective.dictionary(scale, Card()), scale


def _card(model: str, rows: StreamedRows) -> Card:
    return Card(
        target="base",
        site=rows.site.name,
        d_model=rows.d_model,
        model=model,
        versions=versions(),
    )

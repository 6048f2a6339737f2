"""Fit what stands around dictionaries in a model's stream so that it predicts as it did before.

1. Place the dictionaries; choose the blocks; plan the steps of the token budget.
2. Put on what is fitted: LoRA on linear maps of the blocks, an affine map after each site, the
   dictionaries themselves, or any of them together.
3. Each step: the original's final states, fit and splice off, without gradient; the spliced
   and adapted model's; KL between their next-token distributions (equation 7); one move of AdamW.
4. Score held-out text with and without splice and fit, and with random changes in the fit's place;
   save in PEFT's format with a card, changed dictionaries beside it.
5. Take everything off, and prove that the model and the dictionaries are bit for bit as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.activations.tokens import Window
from lorascope.config import Direction, digest
from lorascope.dictionaries.files import save
from lorascope.fits.blocks import chosen_blocks, require_still_thresholds
from lorascope.fits.card import CARD, FittedCard, Result
from lorascope.fits.parts import AffinePart, FittedPart, LoraPart, TunedPart
from lorascope.fits.parts.tuned import fits_encoder
from lorascope.fits.preparing import Marks, plan, recomputing, special_ids, still, stream_scales
from lorascope.fits.run import Fit, Passes
from lorascope.fits.settings import RANDOM_DRAWS, Adapting
from lorascope.fits.wrapper import DICTIONARIES, identity
from lorascope.models.sites import Site, block_list
from lorascope.outputs.evaluation import Evaluated
from lorascope.outputs.kept import KeptStates
from lorascope.outputs.splicing import Given, Placed, Splice, place, spliced
from lorascope.runs import versions, write_json
from lorascope.training.loop import History, Observer


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit leaves.

    Attributes:
        card: as saved.
        history: kl, tokens and seconds of every step; held_out_kl and held_out_loss where it was
            evaluated.
        conditions: {condition: sums by held-out document}, those of the card.
        random: the conditions adapted and unspliced with random changes of equal size in place of
            what was fitted, one a draw: what such changes come to where nothing was learned.
    """

    card: FittedCard
    history: History
    conditions: dict[str, Evaluated]
    random: list[dict[str, Evaluated]]


def fit(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dictionaries: Given,
    training: Sequence[Window],
    held_out: Sequence[Window],
    folder: Path,
    settings: Adapting,
    *,
    model: str,
    evaluations: int = 8,
    random_draws: int = RANDOM_DRAWS,
    trained_on: Sequence[str] = (),
    force: bool = False,
    observers: Sequence[Observer] = (),
    checkpoint: Path | None = None,
    scored: Direction | None = None,
    kept: KeptStates | None = None,
) -> Fitted:
    """Fit around dictionaries and save the result into `folder`.

    Args:
        module: the bare base model as `load_base` gives it; it is left as it was.
        model: its id, saved with the fit.
        training, held_out: windows of different documents.
        evaluations: evaluations on held-out text during the fit; they do not change it.
        random_draws: random changes of equal size to score beside the fit.
        trained_on: digests of the training documents, for the card.
        force: accept dictionaries made for another site or model.
        checkpoint: file to keep the run's state in; a run that was stopped goes on from it.
        scored: direction of the KL that held-out text is scored by; the fitted one by default.
        kept: the original's states, from earlier fits and for later ones; no number depends on it.

    Raises:
        InputError: a dictionary that does not fit, no block to adapt, a fit in front of
            thresholds, too little text, or a budget smaller than one step.
        RuntimeError: the model's or a dictionary's weights changed.
    """
    placed = place(module, dictionaries, model=model, force=force)
    blocks = adapted_blocks(module, placed, settings)
    steps = plan(training, tokenizer, settings)
    marks = Marks.of(module, placed)
    special = special_ids(tokenizer, settings)
    with still(module):
        at_sites = settings.affine is not None or settings.dictionary is not None
        scales = stream_scales(module, tokenizer, training, placed) if at_sites else {}
        with _put_on(module, placed, blocks, special, scales, settings, model) as (splice, parts):
            passes = _passes(module, placed, blocks, marks, special, kept)
            how = (steps, settings, evaluations, scored, passes)
            run = Fit(module, tokenizer, splice, parts, training, held_out, *how)
            run.go(observers, checkpoint, _identity(run, settings, marks, training))
            results, random = run.results(settings.seed, random_draws)
            standing = _saved(parts, placed, folder)
    marks.require_equal(Marks.of(module, placed))
    facts = {"model": model, "special_ids": special, "blocks": blocks, "settings": settings.plain()}
    facts |= {"standing": standing, "trained_on": tuple(sorted(trained_on))}
    card = _card(folder, facts, marks, run, results)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return Fitted(card, run.history, results, random)


def _passes(
    module: PreTrainedModel,
    placed: Placed,
    blocks: tuple[int, ...],
    marks: Marks,
    special: tuple[int, ...],
    kept: KeptStates | None,
) -> Passes:
    """Begun at the first site where all that is fitted lies behind it; states by what they are."""
    first = min(placed)
    begin = first if all(block > first.index for block in blocks) else None
    if kept is None:
        return Passes(begin)
    model = [marks.base, module.config.to_json_string(use_diff=False)]
    model.append(str(getattr(module.config, "_attn_implementation", "")))
    spliced_too = kept.of(*model, marks.dictionaries, special)
    return Passes(begin, kept.of(*model), spliced_too, kept.of(*model, f"stream after {begin}"))


def _identity(run: Fit, settings: Adapting, marks: Marks, training: Sequence[Window]) -> str:
    """What a stopped run must be to go on."""
    windows = [window.ids for window in training]
    return digest([settings.plain(), str(run.products), marks.base, marks.dictionaries, windows])


def adapted_blocks(module: PreTrainedModel, placed: Placed, settings: Adapting) -> tuple[int, ...]:
    """Blocks that are adapted.

    Raises:
        InputError: no block is left, or what is fitted would let a dictionary's L0 drift.
    """
    allowed = settings.before_thresholds
    if settings.affine is not None or settings.dictionary is not None:
        tuned = settings.dictionary
        encoders = [s for s, one in placed.items() if tuned and fits_encoder(one, tuned)]
        require_still_thresholds(placed, encoders, allowed)
    if settings.lora is None:
        return ()
    count = len(block_list(module))
    return chosen_blocks(count, placed, settings.lora.blocks, before_thresholds=allowed)


@contextmanager
def _put_on(
    module: PreTrainedModel,
    placed: Placed,
    blocks: tuple[int, ...],
    special: tuple[int, ...],
    scales: dict[Site, float],
    settings: Adapting,
    model: str,
) -> Iterator[tuple[Splice, list[FittedPart]]]:
    """Within the `with`, dictionaries and all parts are on the model."""
    parts: list[FittedPart] = []
    with ExitStack() as stack:
        if settings.lora is not None:
            lora = LoraPart.on(module, settings.lora, blocks, model=model, seed=settings.seed)
            parts.append(stack.enter_context(lora))
        stack.enter_context(recomputing(module, settings.recompute))
        splice = stack.enter_context(spliced(module, placed, special_ids=special))
        # The affine map comes after whatever dictionary stands at its site.
        if settings.dictionary is not None:
            tuned = TunedPart.on(splice, settings.dictionary, scales)
            parts.append(stack.enter_context(tuned))
        if settings.affine is not None:
            parts.append(stack.enter_context(AffinePart.on(splice, settings.affine, scales)))
        yield splice, parts


def _saved(parts: Sequence[FittedPart], placed: Placed, folder: Path) -> dict[str, str]:
    """Write every part; returns {site: identity} of the dictionaries that are others now."""
    folder.mkdir(parents=True, exist_ok=True)
    standing = placed
    for part in parts:
        part.save(folder)
        standing = part.dictionaries(standing)
    found = {}
    for site, dictionary in standing.items():
        if dictionary is not placed[site]:
            names = " and ".join(part.name for part in parts if part.name != "lora")
            note = f"fitted through the rest of the model ({names})"
            dictionary.card = dictionary.card.model_copy(update={"note": note, "source": ""})
            save(dictionary, folder / DICTIONARIES / site.name)
            found[site.name] = identity(dictionary)
    return found


def _card(
    folder: Path, facts: dict[str, Any], marks: Marks, run: Fit, results: dict[str, Evaluated]
) -> FittedCard:
    """The card of a fit, written into its folder."""
    card = FittedCard(
        **facts,
        base=marks.base,
        dictionaries=marks.dictionaries,
        steps=len(run.history.records),
        tokens=int(sum(run.history.series("tokens"))),
        seconds=run.seconds,
        fitted={part.name: sum(p.numel() for p in part.parameters) for part in run.parts},
        held_out={name: Result(loss=r.mean_loss, kl=r.mean_kl) for name, r in results.items()},
        versions=versions(),
    )
    write_json(folder / CARD, card.plain())
    return card

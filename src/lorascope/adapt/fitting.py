"""Fit low-rank adapters so that a model with dictionaries in its stream predicts as it did before.

1. Place the dictionaries; choose the blocks; plan the steps of the token budget.
2. Put a LoRA adapter on the linear maps of these blocks.
3. Each step: the original's final states, adapter and splice off, without gradient; the spliced
   and adapted model's; KL between their next-token distributions (equation 7); one move of AdamW.
4. Score held-out text with and without splice and adapter; save in PEFT's format with a card.
5. Take the adapter off, and prove that the model and the dictionaries are bit for bit as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.activations.tokens import Window
from lorascope.adapt.blocks import Blocks, Targets, chosen_blocks, linear_maps
from lorascope.adapt.budget import Step, kept_tokens, planned
from lorascope.adapt.card import CARD, FittedCard, Result
from lorascope.adapt.divergence import Direction
from lorascope.adapt.evaluation import Evaluated
from lorascope.adapt.run import Fit
from lorascope.adapt.splicing import Given, Placed, place, spliced
from lorascope.adapt.wrapper import identity
from lorascope.config import Settings, digest
from lorascope.errors import InputError
from lorascope.models.freezing import fingerprint
from lorascope.models.sites import block_list
from lorascope.randomness import derived_seed
from lorascope.runs import versions, write_atomically
from lorascope.training.loop import History, Observer, observing


class Adapting(Settings):
    """How adapters are fitted around dictionaries.

    Attributes:
        rank: of the update of each linear map.
        alpha_over_rank: the update's scale.
        blocks: "all", "after" the first site, or their numbers from 0.
        targets: names of linear maps in the blocks, or all of them.
        direction: "spliced_original" fits KL(ŷ, y), ŷ the spliced model's distribution;
            "original_spliced" fits KL(y, ŷ).
        tokens: budget of tokens whose prediction is compared.
        batch: windows in one pass.
        accumulate: passes a step; their gradients add up as if they were one.
        rate: AdamW's peak learning rate.
        clip: most that the gradient may have as its norm.
        splice_special: splice special tokens too; else they keep their stream and do not count.
        before_thresholds: let adapters act on what a dictionary with thresholds reads.
        recompute: compute activations again in the backward pass instead of keeping them.
        products: "auto" runs matrix products in bfloat16 where the hardware has it.
        seed: decides the adapter's starting weights and the order of the windows.
    """

    rank: int = Field(default=64, gt=0)
    alpha_over_rank: float = Field(default=1.0, gt=0)
    blocks: Blocks = "after"
    targets: Targets = "all-linear"
    direction: Direction = "spliced_original"
    tokens: int = Field(default=15_000_000, gt=0)
    batch: int = Field(default=8, gt=0)
    accumulate: int = Field(default=1, gt=0)
    rate: float = Field(default=1e-3, gt=0)
    clip: float = Field(default=1.0, gt=0)
    splice_special: bool = False
    before_thresholds: bool = False
    recompute: bool = False
    products: str = Field(default="auto", pattern="^(auto|float32|bfloat16)$")
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit leaves.

    Attributes:
        card: as saved.
        history: kl and tokens of every step; held_out_kl and held_out_loss where it was evaluated.
        held_out: {way: sums by document}, the ways of the card.
    """

    card: FittedCard
    history: History
    held_out: dict[str, Evaluated]


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
    trained_on: Sequence[str] = (),
    force: bool = False,
    observers: Sequence[Observer] = (),
    checkpoint: Path | None = None,
) -> Fitted:
    """Fit one adapter around frozen dictionaries and save it into `folder`.

    Args:
        module: the bare base model as `load_base` gives it; it is left as it was.
        model: its id, saved with the adapter.
        training, held_out: windows of different documents.
        evaluations: how often held-out text is looked at on the way; does not change the run.
        trained_on: digests of the training documents, for the card.
        force: accept dictionaries made for another site or model.
        checkpoint: file to keep the run's state in; a run that was stopped goes on from it.

    Raises:
        InputError: a dictionary that does not fit, no block to adapt, blocks in front of
            thresholds, too little text, or a budget smaller than one step.
        RuntimeError: the model's or a dictionary's weights changed.
    """
    placed = place(module, dictionaries, model=model, force=force)
    blocks = chosen_blocks(
        len(block_list(module)),
        placed,
        settings.blocks,
        before_thresholds=settings.before_thresholds,
    )
    plan = _plan(training, tokenizer, settings)
    marks = _Marks.of(module, placed)
    special = () if settings.splice_special else tuple(tokenizer.all_special_ids)
    with _adapted(module, blocks, model, settings) as peft, ExitStack() as stack:
        if settings.recompute:
            stack.enter_context(_recomputing(module))
        splice = stack.enter_context(spliced(peft, placed, special_ids=special))
        run = Fit(peft, tokenizer, splice, training, held_out, plan, settings, evaluations)
        windows = [window.ids for window in training]
        key = [settings.plain(), str(run.products), marks.base, marks.dictionaries, windows]
        run.go(observers, checkpoint, digest(key))
        results = run.results()
        peft.save_pretrained(folder, save_embedding_layers=False)
    marks.require_equal(_Marks.of(module, placed))
    facts = {"model": model, "special_ids": special, "blocks": blocks, "settings": settings.plain()}
    card = _card(facts, marks, run, results, trained_on)
    write_atomically(folder / CARD, json.dumps(card.plain(), indent=1) + "\n")
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return Fitted(card, run.history, results)


def _card(
    facts: dict[str, Any],
    marks: _Marks,
    run: Fit,
    results: dict[str, Evaluated],
    trained_on: Sequence[str],
) -> FittedCard:
    return FittedCard(
        **facts,
        base=marks.base,
        dictionaries=marks.dictionaries,
        steps=len(run.history.records),
        tokens=int(sum(run.history.series("tokens"))),
        parameters=sum(p.numel() for p in run.parameters),
        held_out={name: Result(loss=r.mean_loss, kl=r.mean_kl) for name, r in results.items()},
        trained_on=tuple(sorted(trained_on)),
        versions=versions(),
    )


@dataclass(frozen=True)
class _Marks:
    """What the base and the dictionaries are, to be compared before and after."""

    base: str
    dictionaries: dict[str, str]

    @classmethod
    def of(cls, module: nn.Module, placed: Placed) -> _Marks:
        return cls(fingerprint(module), {site.name: identity(one) for site, one in placed.items()})

    def require_equal(self, after: _Marks) -> None:
        if after.base != self.base:
            raise RuntimeError("the base model was to stay frozen but its weights changed")
        for site, one in self.dictionaries.items():
            if after.dictionaries[site] != one:
                raise RuntimeError(f"the dictionary at {site} was to stay frozen but it changed")


def _plan(training: Sequence[Window], tokenizer: Any, settings: Adapting) -> list[Step]:
    sizes = (
        [len(window.ids) for window in training]
        if settings.splice_special
        else kept_tokens(training, tokenizer)
    )
    return planned(
        sizes,
        tokens=settings.tokens,
        batch=settings.batch,
        accumulate=settings.accumulate,
        seed=settings.seed,
    )


@contextmanager
def _adapted(
    module: PreTrainedModel, blocks: tuple[int, ...], model: str, settings: Adapting
) -> Iterator[PeftModel]:
    """Within the `with`, the model under a fresh adapter; then the bare model again."""
    maps = linear_maps(module, blocks, settings.targets)
    transposed = not isinstance(module.get_submodule(maps[0]), nn.Linear)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha_over_rank * settings.rank,
        target_modules=maps,
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derived_seed(settings.seed, "lora", settings.rank))
        peft = get_peft_model(module, config)
    # The id the user gave, not the folder it was found in.
    peft.peft_config["default"].base_model_name_or_path = model
    try:
        # The caller's train or eval mode comes back.
        with observing(module):
            yield peft.eval()
    finally:
        peft.unload()


@contextmanager
def _recomputing(module: PreTrainedModel) -> Iterator[None]:
    """Within the `with`, blocks keep no activations for the backward pass."""
    if not module.supports_gradient_checkpointing:
        raise InputError(f"{type(module).__name__} cannot recompute activations; leave it off")
    start, stop = "gradient_checkpointing_enable", "gradient_checkpointing_disable"
    if hasattr(module, "activation_checkpointing_enable"):
        start, stop = "activation_checkpointing_enable", "activation_checkpointing_disable"
    blocks = block_list(module)
    getattr(module, start)({"use_reentrant": False})
    # Blocks alone are in training mode, which turns recomputing on; dropout inside them stays off.
    for block in blocks:
        block.training = True
    try:
        yield
    finally:
        getattr(module, stop)()
        for block in blocks:
            block.training = False

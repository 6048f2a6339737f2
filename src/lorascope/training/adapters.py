"""Train LoRA adapters that differ in rank alone, saved in PEFT format.

For every rank: put a fresh adapter on the base, run the training loop over the same batches in the
same order, measure the response loss on held-out records before and after, save.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lorascope.activations.tokens import TokenBatch, Window, batches, pad, require_rows
from lorascope.errors import InputError
from lorascope.models.load import load_base, padding_id, read_config, skeleton
from lorascope.models.saved_adapters import put_in_order
from lorascope.outputs.responses import response_token_losses
from lorascope.randomness import derived_seed, generator
from lorascope.runs import write_json
from lorascope.training.dictionaries import product_dtype
from lorascope.training.loop import History, Observer, train
from lorascope.training.schedules import warmup_cosine
from lorascope.training.settings import LoraTraining

CARD = "lorascope.json"


@dataclass(frozen=True)
class TrainingOutcome:
    """One adapter's row in the table of training results.

    Attributes:
        seed: of its starting weights and of the order of its records.
        train_loss: mean response loss over the last tenth of the steps, nats/token.
        held_out_before, held_out_after: response loss on held-out records without and with it.
    """

    adapter: str
    rank: int
    seed: int
    steps: int
    parameters: int
    train_loss: float
    held_out_before: float
    held_out_after: float


def train_adapter(
    model: str,
    name: str,
    training: Sequence[Window],
    held_out: Sequence[Window],
    folder: Path,
    settings: LoraTraining,
    *,
    trained_on: Sequence[str] = (),
    before: float | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    observers: Sequence[Observer] = (),
) -> TrainingOutcome:
    """Train one adapter and save it into `folder`.

    Args:
        model: hub id, folder or "embedded".
        name: of the adapter in its table row.
        settings: of the first of whose ranks the adapter is.
        training, held_out: windows of the records with their responses marked.
        trained_on: digests of the training documents, saved so that audits can leave them out.
        before: the base's loss on `held_out`, where it is known from another adapter.

    Raises:
        InputError: no response to learn from, or targets that name no module.
    """
    rank = settings.ranks[0]
    _check_targets(model, revision, settings)
    base, tokenizer = load_base(model, revision=revision, device=device, dtype=dtype)
    require_rows([*training, *held_out], base, tokenizer)
    low = product_dtype(settings.products, base.device)
    learnable, measured = _with_responses(training), _with_responses(held_out)
    if before is None:
        before = mean_response_loss(base, tokenizer, measured, low)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derived_seed(settings.seed, "lora", rank))
        adapted = _with_adapter(base, model, rank, settings)
        history = _run(adapted, tokenizer, learnable, settings, low, observers)
    after = mean_response_loss(adapted.eval(), tokenizer, measured, low)
    # The vocabulary is the base's: without this PEFT asks the hub for the base's own settings.
    adapted.save_pretrained(folder, save_embedding_layers=False)
    put_in_order(folder)
    parameters = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    trained = history.tail_mean("loss")
    outcome = TrainingOutcome(
        name, rank, settings.seed, settings.steps, parameters, trained, before, after
    )
    silent = len(training) + len(held_out) - len(learnable) - len(measured)
    counts = {"training": len(learnable), "held_out": len(measured), "without a response": silent}
    card = {
        "model": model,
        "settings": settings.plain(),
        "outcome": asdict(outcome),
        "records": counts,
        "trained_on": sorted(trained_on),
    }
    write_json(folder / CARD, card)
    return outcome


def _with_responses(found: Sequence[Window]) -> list[Window]:
    """The windows in which a response is to be predicted."""
    # A window's first token has nothing before it and cannot be.
    chosen = [window for window in found if any(window.response[1:])]
    if not chosen:
        raise InputError(
            "the records hold no response to learn from: give instruction/output or messages "
            "records, at least a few dozen"
        )
    return chosen


@torch.no_grad()
def mean_response_loss(
    module: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    found: Sequence[Window],
    low: torch.dtype = torch.float32,
    batch_tokens: int = 4096,
) -> float:
    """Mean −log p over the response tokens of windows, in nats."""
    device = next(module.parameters()).device
    total, count = 0.0, 0
    for batch in batches(found, tokenizer, padding_id(tokenizer), batch_tokens):
        with torch.autocast(device.type, dtype=low, enabled=low != torch.float32):
            losses, _ = response_token_losses(module, batch, device)
        total, count = total + losses.double().sum().item(), count + len(losses)
    return total / count


def _check_targets(model: str, revision: str | None, settings: LoraTraining) -> None:
    """Refuse targets that name no module before the weights are read."""
    bare = skeleton(read_config(model, revision))
    if bare is not None:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            _with_adapter(bare, model, settings.ranks[0], settings)


def _with_adapter(base: nn.Module, model: str, rank: int, settings: LoraTraining) -> Any:
    alpha = settings.alpha_over_rank * rank
    targets = settings.targets if settings.targets == "all-linear" else list(settings.targets)
    config = LoraConfig(
        r=rank,
        # Not rounded: the scale is the same at every rank, and no adapter is scaled to nothing.
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(base, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:240] or type(error).__name__
        raise InputError(
            f"targets {settings.targets}: {reason}; name linear maps of the model, or all-linear"
        ) from error
    # The id the user gave, not the folder it was found in.
    adapted.peft_config["default"].base_model_name_or_path = model
    return adapted.train()


def _run(
    adapted: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    learnable: Sequence[Window],
    settings: LoraTraining,
    low: torch.dtype,
    observers: Sequence[Observer],
) -> History:
    trainable = [p for p in adapted.parameters() if p.requires_grad]
    device = trainable[0].device

    def step(batch: TokenBatch) -> dict[str, Tensor]:
        with torch.autocast(device.type, dtype=low, enabled=low != torch.float32):
            losses, _ = response_token_losses(adapted, batch, device)
        loss = losses.mean()
        loss.backward()
        return {"loss": loss}

    return train(
        step,
        _record_batches(learnable, tokenizer, settings),
        torch.optim.AdamW(trainable, lr=settings.rate, weight_decay=0.0),
        steps=settings.steps,
        schedule=warmup_cosine(0.1, floor=0.1),
        clip_norm=1.0,
        observers=observers,
        module=adapted,
    )


def _record_batches(
    learnable: Sequence[Window], tokenizer: PreTrainedTokenizerBase, settings: LoraTraining
) -> Iterator[TokenBatch]:
    """Endless batches in an order that depends on the seed and on nothing else."""
    random = generator(settings.seed, "records")
    size = min(settings.batch, len(learnable))
    while True:
        order = torch.randperm(len(learnable), generator=random).tolist()
        for start in range(0, len(order) - size + 1, size):
            chosen = [learnable[i] for i in order[start : start + size]]
            yield pad(chosen, tokenizer, padding_id(tokenizer))

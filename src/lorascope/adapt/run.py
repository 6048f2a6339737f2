"""One fit on its way: the step, the looks at held-out text, and going on after a stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from peft import PeftModel
from torch import Tensor, nn

from lorascope.activations.tokens import TokenBatch, Window, pad
from lorascope.adapt.budget import Step
from lorascope.adapt.divergence import Direction, divergence
from lorascope.adapt.evaluation import Evaluated, Way, evaluate
from lorascope.adapt.head import Head, final_states
from lorascope.adapt.splicing import Splice
from lorascope.models.load import padding_id
from lorascope.training.checkpoints import Checkpoint
from lorascope.training.dictionaries import product_dtype
from lorascope.training.loop import History, Observer, Progress, stepwise
from lorascope.training.schedules import warmup_cosine

# What the history calls the looks at held-out text.
HELD_OUT_KL, HELD_OUT_LOSS = "held_out_kl", "held_out_loss"
SAVE_SECONDS = 60.0


class Learning(Protocol):
    """The settings a run reads."""

    @property
    def rate(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def splice_special(self) -> bool: ...
    @property
    def products(self) -> str: ...


class Fit:
    """An adapter being fitted; the splice and the adapter are on the model already.

    Attributes:
        products: type of the matrix products.
        parameters: what is fitted.
        history: kl and tokens of every step done.
    """

    def __init__(
        self,
        peft: PeftModel,
        tokenizer: Any,
        splice: Splice,
        training: Sequence[Window],
        held_out: Sequence[Window],
        plan: Sequence[Step],
        settings: Learning,
        evaluations: int,
    ) -> None:
        self.products = product_dtype(settings.products, peft.device)
        self.parameters = [p for p in peft.parameters() if p.requires_grad]
        self.history = History()
        self._peft, self._tokenizer, self._splice = peft, tokenizer, splice
        self._training, self._held_out, self._plan = training, held_out, plan
        self._settings = settings
        with splice.off():
            self._head = Head.of(peft)
        self._looks = {round(len(plan) * (i + 1) / evaluations) for i in range(evaluations)}

    def go(self, observers: Sequence[Observer], checkpoint: Path | None, identity: str) -> None:
        """Run the plan to its end, from where an earlier run of the same identity stopped."""
        settings = self._settings
        optimizer = torch.optim.AdamW(self.parameters, lr=settings.rate, weight_decay=0.0)
        # Last: what was noted of a step is saved with it.
        looking = [self._look, *observers]
        if checkpoint is not None:
            keeper = Checkpoint(checkpoint, identity, SAVE_SECONDS)
            keeper.bind(nn.ParameterList(self.parameters), optimizer, self.history)
            keeper.restore()
            looking.append(keeper)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate  # what was saved is the rate of one step
        running = stepwise(
            self.step,
            self._batches(len(self.history.records)),
            optimizer,
            self.history,
            steps=len(self._plan),
            schedule=warmup_cosine(0.05, floor=0.1),
            clip_norm=settings.clip,
            observers=looking,
            module=self._peft,
        )
        for _ in running:
            pass

    def results(self) -> dict[str, Evaluated]:
        """Held-out text as the original, spliced, spliced and adapted, and adapted alone."""
        ways: dict[str, Way] = {
            "original": self._original,
            "spliced": self._bare,
            "adapted": nullcontext,
            "unspliced": self._splice.off,
        }
        return self._evaluate(ways)

    def step(self, batches: Sequence[TokenBatch]) -> dict[str, Tensor]:
        """Leave gradients of the mean KL over all tokens of a step; returns it and their number."""
        tokens = sum(int(self._counted(batch).sum()) for batch in batches)
        total = torch.zeros((), device=self.parameters[0].device)
        for batch in batches:
            kept = self._counted(batch)
            with self._original(), torch.no_grad():
                original = self._states(batch, kept)
            # A context of its own: autocast must not hand on what it cast without gradient.
            states = self._states(batch, kept)
            with torch.autocast(states.device.type, self.products, self._low):
                loss = divergence(
                    states, original, self._head, self._settings.direction, tokens=tokens
                )
            loss.backward()
            total += loss.detach().to(total.device)
        return {"kl": total, "tokens": torch.tensor(float(tokens), dtype=torch.float64)}

    def _states(
        self, batch: TokenBatch, kept: Bool[Tensor, "batch seq"]
    ) -> Float[Tensor, "tokens d"]:
        device = self._peft.get_input_embeddings().weight.device
        ids, mask = batch.ids.to(device), batch.attended.long().to(device)
        with torch.autocast(device.type, self.products, self._low):
            states = final_states(self._peft, ids, mask)
        return states[kept.to(states.device)]

    def _counted(self, batch: TokenBatch) -> Bool[Tensor, "batch seq"]:
        return batch.attended if self._settings.splice_special else batch.kept

    @property
    def _low(self) -> bool:
        return self.products != torch.float32

    def _batches(self, done: int) -> Iterator[list[TokenBatch]]:
        padding = padding_id(self._tokenizer)
        for step in self._plan[done:]:
            yield [
                pad([self._training[i] for i in part], self._tokenizer, padding) for part in step
            ]

    def _look(self, progress: Progress) -> None:
        """Note KL and loss of the spliced, adapted model on held-out text, where it is due."""
        if progress.step + 1 in self._looks:
            found = self._evaluate({"adapted": nullcontext})["adapted"]
            looks = {HELD_OUT_KL: found.mean_kl, HELD_OUT_LOSS: found.mean_loss}
            noted = {name: torch.tensor(value) for name, value in looks.items()}
            self.history.records[-1] = {**self.history.records[-1], **noted}

    def _evaluate(self, ways: dict[str, Way]) -> dict[str, Evaluated]:
        return evaluate(
            self._peft,
            self._tokenizer,
            self._held_out,
            self._original,
            ways,
            direction=self._settings.direction,
            products=self.products,
            head=self._head,
            keep_special=self._settings.splice_special,
        )

    @contextmanager
    def _original(self) -> Iterator[None]:
        """Within the `with`, neither splice nor adapter."""
        with self._splice.off(), self._bare():
            yield

    @contextmanager
    def _bare(self) -> Iterator[None]:
        """Within the `with`, no adapter."""
        self._peft.base_model.disable_adapter_layers()
        try:
            yield
        finally:
            self._peft.base_model.enable_adapter_layers()

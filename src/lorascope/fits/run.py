"""One fit: its training step, its evaluations on held-out text, and resuming after a stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from lorascope.activations.tokens import TokenBatch, Window, pad
from lorascope.config import Direction
from lorascope.fits.budget import Step
from lorascope.fits.parts.part import FittedPart, Values, exchanged
from lorascope.fits.settings import Learning
from lorascope.models.load import padding_id
from lorascope.models.sites import Site
from lorascope.outputs.begun import Begun
from lorascope.outputs.conditions import Begin, Condition, whole
from lorascope.outputs.divergence import mean_divergence
from lorascope.outputs.evaluation import Evaluated, evaluate, states_at
from lorascope.outputs.head import Head
from lorascope.outputs.kept import Known
from lorascope.outputs.splicing import Splice
from lorascope.randomness import generator
from lorascope.training.checkpoints import Checkpoint
from lorascope.training.dictionaries import product_dtype
from lorascope.training.loop import History, Observer, StepProgress, stepwise
from lorascope.training.schedules import Schedule, warmup_cosine
from lorascope.training.snapshots import Stopwatch

# Names in the history of the evaluations on held-out text.
HELD_OUT_KL, HELD_OUT_LOSS = "held_out_kl", "held_out_loss"
SAVE_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Passes:
    """What the passes of a fit need not compute.

    Attributes:
        begin: a site with nothing fitted before or at its block, nor any splice before it: passes
            over a batch have one stream up to there.
        original: where other fits leave the states of the model as it was.
        spliced: those with the dictionaries spliced and nothing fitted.
        stream: that of the original after `begin`.
    """

    begin: Site | None = None
    original: Known | None = None
    spliced: Known | None = None
    stream: Known | None = None


class Fit:
    """Something being fitted; the splice and all parts are on the model already.

    Attributes:
        products: type of the matrix products.
        parts: what is fitted, in order.
        parameters: all of theirs.
        history: kl, tokens and seconds of every step done.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        splice: Splice,
        parts: Sequence[FittedPart],
        training: Sequence[Window],
        held_out: Sequence[Window],
        plan: Sequence[Step],
        settings: Learning,
        evaluations: int,
        scored: Direction | None = None,
        passes: Passes | None = None,
    ) -> None:
        self.parts = tuple(parts)
        self.parameters = [parameter for part in parts for parameter in part.parameters]
        self.products = product_dtype(settings.products, self.parameters[0].device)
        self.history = History()
        self._module, self._tokenizer, self._splice = module, tokenizer, splice
        self._training, self._held_out, self._plan = training, held_out, plan
        self._settings, self._scored = settings, scored or settings.direction
        with splice.off():
            self._head = Head.of(module)
        self._looks = {round(len(plan) * (i + 1) / evaluations) for i in range(evaluations)}
        self._watch = Stopwatch(self.history)
        self._rooms: dict[str, Tensor] = {}
        passes = passes or Passes()
        ways: dict[Condition, Known | None] = {
            self._original: passes.original,
            self._bare: passes.spliced,
        }
        self._known = {way: known for way, known in ways.items() if known is not None}
        self._begin: Begin = whole
        if passes.begin is not None:
            given = (module, passes.begin, self._original, self.products, passes.stream)
            self._begin = Begun(*given)

    def go(
        self,
        observers: Sequence[Observer],
        checkpoint: Path | None,
        identity: str,
        schedule: Schedule | None = None,
    ) -> None:
        """Run the plan to its end, from where an earlier run of the same identity stopped.

        Args:
            observers: called after the looks; what they note in the history is saved with it.
            schedule: of all rates; by default a short rise and a cosine to a tenth.
        """
        groups = [{"params": list(part.parameters), "lr": part.rate} for part in self.parts]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        # Last: what was noted of a step is saved with it.
        looking: list[Observer] = [self._watch, self._look, *observers]
        if checkpoint is not None:
            keeper = Checkpoint(checkpoint, identity, SAVE_SECONDS)
            keeper.bind(nn.ParameterList(self.parameters), optimizer, self.history)
            keeper.restore()
            looking.append(keeper)
        for group, part in zip(optimizer.param_groups, self.parts, strict=True):
            group["lr"] = part.rate  # what was saved is the rate of one step
        running = stepwise(
            self.step,
            self._batches(len(self.history.records)),
            optimizer,
            self.history,
            steps=len(self._plan),
            schedule=schedule or warmup_cosine(0.05, floor=0.1),
            clip_norm=self._settings.clip,
            observers=looking,
            module=self._module,
        )
        for _ in running:
            pass

    @property
    def seconds(self) -> float:
        """Wall clock of all steps done, in this process and in those it goes on from."""
        return self._watch.seconds

    def results(
        self, seed: int, draws: int
    ) -> tuple[dict[str, Evaluated], list[dict[str, Evaluated]]]:
        """Held-out text under every way, all on the same batches.

        Args:
            seed: decides the random changes.
            draws: how many.

        Returns:
            The conditions original, spliced, adapted (spliced and fitted) and unspliced (fitted
            alone); and adapted and unspliced again with each random change of the fit's size in
            its place.
        """
        conditions: dict[str, Condition] = {
            "original": self._original,
            "spliced": self._bare,
            "adapted": nullcontext,
        }
        alone = any(part.changes_model for part in self.parts)
        if alone:
            conditions["unspliced"] = self._splice.off
        for draw in range(draws):
            values = [
                value
                for part in self.parts
                for value in part.scrambled(generator(seed, "scrambled", part.name, draw))
            ]
            conditions[f"adapted {draw}"] = partial(exchanged, values)
            if alone:
                conditions[f"unspliced {draw}"] = partial(self._unspliced, values)
        found = self._evaluate(conditions)
        # Without the splice nothing but LoRA acts.
        own = {name: found[name] for name in ("original", "spliced", "adapted")}
        own["unspliced"] = found.get("unspliced", own["original"])
        random = [
            {
                "adapted": found[f"adapted {draw}"],
                "unspliced": found.get(f"unspliced {draw}", own["original"]),
            }
            for draw in range(draws)
        ]
        return own, random

    def step(self, batches: Sequence[TokenBatch]) -> dict[str, Tensor]:
        """Leave gradients of the mean KL over all tokens of a step; returns it and their number."""
        tokens = sum(int(self._counted(batch).sum()) for batch in batches)
        total = torch.zeros((), device=self.parameters[0].device)
        for batch in batches:
            kept = self._counted(batch)
            with self._begin(batch):
                with self._original(), torch.no_grad():
                    known = self._known.get(self._original)
                    original = states_at(self._module, batch, kept, self.products, known)
                # A context of its own: autocast must not hand on what it cast without gradient.
                states = states_at(self._module, batch, kept, self.products)
                with torch.autocast(states.device.type, self.products, self._low):
                    loss = mean_divergence(
                        states,
                        original,
                        self._head,
                        self._settings.direction,
                        tokens=tokens,
                        rooms=self._rooms,
                    )
                loss.backward()
            total += loss.detach().to(total.device)
        return {"kl": total, "tokens": torch.tensor(float(tokens), dtype=torch.float64)}

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

    def _look(self, progress: StepProgress) -> None:
        """Note KL and loss of the spliced, adapted model on held-out text, where it is due."""
        if progress.step + 1 in self._looks:
            found = self._evaluate({"adapted": nullcontext})["adapted"]
            looks = {HELD_OUT_KL: found.mean_kl, HELD_OUT_LOSS: found.mean_loss}
            noted = {name: torch.tensor(value) for name, value in looks.items()}
            self.history.records[-1] = {**self.history.records[-1], **noted}

    def _evaluate(self, conditions: dict[str, Condition]) -> dict[str, Evaluated]:
        return evaluate(
            self._module,
            self._tokenizer,
            self._held_out,
            self._original,
            conditions,
            direction=self._scored,
            products=self.products,
            head=self._head,
            keep_special=self._settings.splice_special,
            known=self._known,
            begin=self._begin,
        )

    @contextmanager
    def _original(self) -> Iterator[None]:
        """Within the `with`, neither splice nor anything fitted."""
        with self._splice.off(), self._bare():
            yield

    @contextmanager
    def _unspliced(self, values: Values) -> Iterator[None]:
        """Within the `with`, no splice, and other values in the fit's place."""
        with self._splice.off(), exchanged(values):
            yield

    @contextmanager
    def _bare(self) -> Iterator[None]:
        """Within the `with`, nothing of what is fitted."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.off())
            yield

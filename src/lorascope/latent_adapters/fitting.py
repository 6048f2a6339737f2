"""Train a latent adapter on a behaviour: some examples changed, some left as they were.

1. The examples are read once at the site (`reading`): stream and active latents.
2. Where asked for, latents are preselected by attribution.
3. Each step takes as many changed as unchanged examples, lets the adapter act on their stream, goes
   on through the rest of the model, and moves along the gradient of the mean cross-entropy of the
   response tokens plus what sparsity adds; sparsity may act on the factors afterwards.
4. The model and the dictionary are proved to be bit for bit as before; the adapter has its card.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorascope.activations.tokens import Window
from lorascope.config import digest
from lorascope.errors import InputError
from lorascope.fits.wrapper import identity
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.attribution import attribute
from lorascope.latent_adapters.card import LatentCard, OverDictionary
from lorascope.latent_adapters.flatness import effective_number
from lorascope.latent_adapters.reading import ActiveLatents, FrozenSite, Seen, SeenBatch
from lorascope.latent_adapters.settings import LatentTraining
from lorascope.models.freezing import fingerprint
from lorascope.outputs.responses import response_token_losses
from lorascope.randomness import generator
from lorascope.runs import versions
from lorascope.training.checkpoints import Checkpoint
from lorascope.training.dictionaries import product_dtype
from lorascope.training.loop import History, Observer, stepwise
from lorascope.training.schedules import warmup_cosine

SAVE_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Examples:
    """A behaviour's training examples as the site has them, responses marked.

    Attributes:
        changed: those whose response shows the behaviour.
        unchanged: those whose response is as it was.
        data: where they came from.
        trained_on: digests of their documents.
    """

    changed: Sequence[Seen]
    unchanged: Sequence[Seen]
    data: str = ""
    trained_on: Sequence[str] = ()

    @classmethod
    def read(
        cls,
        reading: FrozenSite,
        changed: Sequence[Window],
        unchanged: Sequence[Window],
        data: str = "",
        trained_on: Sequence[str] = (),
    ) -> Examples:
        """Examples read at the site; those without a response to learn are left out.

        Raises:
            InputError: one of the two kinds has none.
        """
        # A window's first token has nothing before it and cannot be predicted.
        kept = [[w for w in kind if any(w.response[1:])] for kind in (changed, unchanged)]
        for kind, name in zip(kept, ("changed", "unchanged"), strict=True):
            if not kind:
                raise InputError(
                    f"{data or 'the behaviour'}: no {name} example with a response to train on; "
                    "a behaviour needs examples that show it and examples that do not"
                )
        return cls(reading.see(kept[0]), reading.see(kept[1]), data, trained_on)

    def digest(self) -> str:
        """Hash of all tokens that are trained on."""
        kinds = (self.changed, self.unchanged)
        return digest([[(s.window.ids, s.window.response) for s in kind] for kind in kinds])


@dataclass(frozen=True, eq=False)
class FittedLatentAdapter:
    """What training leaves.

    Attributes:
        adapter: as trained, with its card, ready to be attached or saved.
        history: loss, penalty, and how many latents carry each factor (`effective_read`,
            `effective_written`), of every step.
    """

    adapter: LatentAdapter
    history: History


def fit(
    reading: FrozenSite,
    examples: Examples,
    settings: LatentTraining,
    *,
    model: str,
    observers: Sequence[Observer] = (),
    checkpoint: Path | None = None,
) -> FittedLatentAdapter:
    """Train one latent adapter.

    Args:
        model: the base model's id, for the card.
        checkpoint: file to keep the run's state in; a run that was stopped goes on from it.

    Raises:
        InputError: no latent is active on the examples.
        RuntimeError: the model's or the dictionary's weights changed.
    """
    before = _marks(reading)
    adapter = _fresh(reading, examples, settings)
    run = _AdapterFit(reading, examples, settings, adapter)
    key = [settings.plain(), str(run.products), *before, reading.special_ids, examples.digest()]
    history = run.go(observers, checkpoint, digest(key))
    if _marks(reading) != before:
        raise RuntimeError("the model and the dictionary were to stay frozen but changed")
    adapter.at(1.0)
    adapter.card = LatentCard(
        model=model,
        base=before[0],
        site=reading.site.name,
        dictionary=OverDictionary.of(reading.dictionary),
        special_ids=reading.special_ids,
        rank=settings.rank,
        data=examples.data,
        examples={"changed": len(examples.changed), "unchanged": len(examples.unchanged)},
        settings=settings.plain(),
        candidates=_candidates(adapter),
        steps=settings.steps,
        loss=history.tail_mean("loss"),
        trained_on=tuple(sorted(examples.trained_on)),
        versions=versions(),
    )
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return FittedLatentAdapter(adapter.requires_grad_(False).eval(), history)


def _marks(reading: FrozenSite) -> tuple[str, str]:
    return fingerprint(reading.module), identity(reading.dictionary)


def _fresh(reading: FrozenSite, examples: Examples, settings: LatentTraining) -> LatentAdapter:
    most = settings.sparsity.preselect
    latents = None
    if most is not None:
        found = attribute(reading, examples.changed, examples.unchanged, settings.rank)
        latents = found.candidates(most)
    adapter = LatentAdapter(
        reading.dictionary,
        settings.rank,
        settings.sparsity,
        latents=latents,
        generator=generator(settings.seed, "latent adapter"),
    )
    return adapter.to(reading.device)


def _candidates(adapter: LatentAdapter) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Latents it could come to read and to write; None for all there are."""
    reads, writes = adapter.read_latents, adapter.written_latents
    if not isinstance(reads, Tensor) or not isinstance(writes, Tensor):
        return None
    return tuple(reads.tolist()), tuple(writes.tolist())


@torch.no_grad()
def _unit(adapter: LatentAdapter, examples: Examples) -> float:
    """s at which the factors write as much as the stream holds, over the examples' tokens."""
    adapter.at(0.0)
    read, write = adapter.factors()
    seen = [*examples.changed, *examples.unchanged]
    written = (write @ adapter.dictionary.directions.to(write)).norm(dim=1)
    amounts = ActiveLatents.together([one.codes for one in seen]).read(read)
    norms = torch.cat([one.stream[one.acted_on].float().norm(dim=1) for one in seen])
    wrote = (amounts * written).square().mean().sqrt()
    return float(norms.square().mean().sqrt() / wrote.cpu().clamp(min=1e-12))


class _AdapterFit:
    """One adapter being trained."""

    def __init__(
        self,
        reading: FrozenSite,
        examples: Examples,
        settings: LatentTraining,
        adapter: LatentAdapter,
    ) -> None:
        self.products = product_dtype(settings.products, reading.device)
        self._reading, self._examples = reading, examples
        self._settings, self._adapter = settings, adapter
        self._history = History()
        unit = _unit(adapter, examples)
        adapter.scale.data.fill_(settings.scale * unit)
        self._rates = (settings.rate, settings.rate * settings.scale_rate * unit)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [adapter.read, adapter.write], "lr": self._rates[0]},
                {"params": [adapter.scale], "lr": self._rates[1]},
            ],
            weight_decay=0.0,
        )

    def go(self, observers: Sequence[Observer], checkpoint: Path | None, key: str) -> History:
        """All steps, from where an earlier run of the same key stopped."""
        settings, looking = self._settings, list(observers)
        if checkpoint is not None:
            keeper = Checkpoint(checkpoint, key, SAVE_SECONDS)
            keeper.bind(self._adapter, self._optimizer, self._history)
            keeper.restore()
            looking.append(keeper)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate  # what was saved is the rate of one step
        running = stepwise(
            self._step,
            self._batches(len(self._history.records)),
            self._optimizer,
            self._history,
            steps=settings.steps,
            schedule=warmup_cosine(0.05, floor=0.1),
            clip_norm=settings.clip,
            after=self._settle,
            observers=looking,
            module=self._adapter,
        )
        for _ in running:
            pass
        return self._history

    def _step(self, batch: SeenBatch) -> dict[str, Tensor]:
        adapter, reading = self._adapter, self._reading
        step = len(self._history.records)
        adapter.at(step / self._settings.steps, generator(self._settings.seed, "gates", step))
        stream = reading.changed(adapter, batch)
        with (
            reading.going_on(stream) as module,
            torch.autocast(
                stream.device.type, self.products, enabled=self.products != torch.float32
            ),
        ):
            losses, _ = response_token_losses(module, batch.tokens, reading.device)
        loss, penalty = losses.mean(), adapter.penalty()
        (loss + penalty).backward()
        with torch.no_grad():
            read, write = (effective_number(f).mean() for f in adapter.factors())
        return {
            "loss": loss,
            "penalty": penalty,
            "effective_read": read,
            "effective_written": write,
        }

    def _settle(self, _step: int) -> None:
        self._adapter.settle(float(self._optimizer.param_groups[0]["lr"]))

    def _batches(self, done: int) -> Iterator[SeenBatch]:
        """Half changed, half unchanged; every batch follows from the seed and its number."""
        half = self._settings.batch // 2
        kinds = {"changed": self._examples.changed, "unchanged": self._examples.unchanged}
        streams = [_endless(kind, half, self._settings.seed, name) for name, kind in kinds.items()]
        for step, parts in enumerate(zip(*streams, strict=True)):
            if step >= done:
                yield self._reading.batch([one for part in parts for one in part])


def _endless(kind: Sequence[Seen], size: int, seed: int, name: str) -> Iterator[list[Seen]]:
    """So many examples a step; all of them come before any comes again."""
    random = generator(seed, "examples", name)
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(len(kind), generator=random).tolist()
        yield [kind[i] for i in waiting[:size]]
        waiting = waiting[size:]

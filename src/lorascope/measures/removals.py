"""Changes of one latent at a time, many side by side.

1. `Sight` is a window under one intervention: the model as it is there, run once.
2. `Sight.changed` takes away, or adds, what each of some latents writes in the window, each in a
   copy of its own, and runs the copies from the first position that changes.
3. `sweep` goes through all windows once for several `RemovalMeasure`s, which say what they want to
   know of each; what two of them want is run once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lorascope.measures.spots import MODES, Mode, Rows, Spot, signed
from lorascope.models.adapted import AdaptedModel
from lorascope.models.passages import Beginning, Passage, beginning_at, open_passage
from lorascope.outputs.scoring import divergence

# Positions of one pass, and logits; what is run in vain before a copy's own first change.
_POSITIONS, _LOGITS, _VAIN = {"cpu": 2048}, 2**25, {"cpu": 96}
_POSITIONS_ELSEWHERE, _VAIN_ELSEWHERE = 16384, 2048


@dataclass(frozen=True)
class Change:
    """A latent, and which direction is written in its place: 0 its own."""

    latent: int
    column: int = 0


@dataclass(frozen=True, eq=False)
class Changed:
    """What a change does to the scored tokens of a window, summed over them.

    Attributes:
        loss: change of −log p, nats.
        kl: KL(unchanged ‖ changed), nats.
        log_p, before: of the scored tokens from number `first` on: changed, and unchanged.
    """

    loss: float
    kl: float
    first: int
    log_p: Float[Tensor, "tokens vocab"]
    before: Float[Tensor, "tokens vocab"]


@dataclass(frozen=True, eq=False)
class Sight:
    """A window of a spot under one intervention.

    Attributes:
        positions: of its rows, in the window.
        strengths: of its rows.
        tokens: which of the spot's scored tokens are its own.
        log_p: of its scored tokens, unchanged.
    """

    spot: Spot
    mode: Mode
    window: int
    passage: Passage
    positions: Int[Tensor, " rows"]
    strengths: Float[Tensor, "rows n"]
    tokens: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    log_p: Float[Tensor, "tokens vocab"]

    def changed(
        self, wanted: Mapping[Change, Float[Tensor, " d"]]
    ) -> Iterator[tuple[Change, Changed]]:
        """What comes of each change, and of none of those that change no scored token.

        Args:
            wanted: {change: unit direction that is written}.
        """
        scored = self.passage.wanted.nonzero().squeeze(1)
        last = int(scored[-1])
        begins: list[tuple[int, Change]] = []
        # Read at once, and not one change after another.
        columns = {latent: c for c, latent in enumerate({one.latent for one in wanted})}
        active = (self.strengths[:, list(columns)] > 0).to(self.positions.device)
        for one in wanted:
            fires = self.positions[active[:, columns[one.latent]]]
            if len(fires) and int(fires[0]) <= last:
                begins.append((int(fires[0]), one))
        begins.sort(key=lambda pair: pair[0])
        # Behind the last scored token nothing is scored.
        for begin, together in self._together(begins, last + 1, len(scored)):
            first = int((scored < begin).sum())
            streams = self._streams(wanted, together, begin)
            logits = self.passage.resume(streams, begin)
            after = functional.log_softmax(logits.float(), dim=-1)
            before, targets = self.log_p[first:], self.targets[first:].to(after.device)
            kl = divergence(before, after).sum(1)
            came = (
                before.gather(1, targets[:, None])
                - after.gather(2, targets.expand(len(after), -1)[..., None]).squeeze(-1).T
            )
            numbers = torch.stack([came.sum(0).double(), kl.double()], dim=1).tolist()
            for index, (one, (lost, apart)) in enumerate(zip(together, numbers, strict=True)):
                yield one, Changed(lost, apart, first, after[index], before)

    def _together(
        self, begins: Sequence[tuple[int, Change]], end: int, tokens: int
    ) -> Iterator[tuple[int, list[Change]]]:
        """Changes that share a pass, and where it begins."""
        device, vocabulary = self.log_p.device.type, self.log_p.shape[1]
        most = _POSITIONS.get(device, _POSITIONS_ELSEWHERE)
        vain = _VAIN.get(device, _VAIN_ELSEWHERE)
        chosen: list[Change] = []
        begin, waste = 0, 0
        for at, one in begins:
            count = len(chosen) + 1
            if chosen and (
                count * end > most
                or count * tokens * vocabulary > _LOGITS
                or waste + at - begin > vain
            ):
                yield begin, chosen
                chosen, waste = [], 0
            if not chosen:
                begin = at
            waste += at - begin
            chosen.append(one)
        if chosen:
            yield begin, chosen

    def _streams(
        self, wanted: Mapping[Change, Tensor], together: Sequence[Change], begin: int
    ) -> Float[Tensor, "n suffix d"]:
        """The window's stream from a position on, once for each change and with it."""
        stream = self.passage.stream[begin:]
        later = (self.positions >= begin).nonzero().squeeze(1)
        at = (self.positions[later] - begin).to(stream.device)
        latents = torch.tensor([one.latent for one in together], device=self.strengths.device)
        strengths = self.strengths[later.to(self.strengths.device)][:, latents]
        units = torch.stack([wanted[one] for one in together]).to(strengths)
        added = signed(self.mode, strengths.T[..., None] * units[:, None]).to(stream.device)
        streams = stream.expand(len(together), -1, -1).clone()
        streams[:, at] = (stream[at].float() + added).to(stream.dtype)
        return streams


class RemovalMeasure:
    """What one measure wants to know of every window."""

    # Whether the gradient of the summed loss is wanted.
    gradient: tuple[Mode, ...] = ()

    def asks(self, number: int, mode: Mode, window: int) -> Mapping[Change, Float[Tensor, " d"]]:
        """The changes wanted in a window of the spot of that number: {change: unit direction}."""
        return {}

    def opened(self, number: int, sight: Sight) -> None:
        """Look at a window as it is, before any change."""

    def take(self, number: int, sight: Sight, one: Change, found: Changed) -> None:
        """Take what came of a change that was asked for; those asked for that change no scored
        token never come."""

    def close(self, number: int, spot: Spot, mode: Mode, gradient: Rows) -> None:
        """Take the gradient at a spot's rows, once its windows are through."""


@torch.no_grad()
def sweep(model: AdaptedModel, spots: Sequence[Spot], parts: Sequence[RemovalMeasure]) -> None:
    """Put all windows with a scored token through both interventions."""
    for number, spot in enumerate(spots):
        lengths = spot.batch.attended.sum(1)
        longest = int(lengths.argmax())
        for mode in MODES:
            # One switch of variants for all changes under it.
            with model.variant(spot.variants[mode]):
                ids = spot.batch.ids[longest, : int(lengths[longest])].to(model.device)
                beginning = beginning_at(model, spot.variants[mode], spot.site, ids)
                wants = [part for part in parts if mode in part.gradient]
                gradient = torch.zeros(int(spot.rows.sum()), model.d_model)
                for sight in _sights(model, spot, mode, beginning, bool(wants)):
                    _look(number, sight, parts)
                    if sight.passage.gradient is not None:
                        rows = (spot.window_of_row == sight.window).nonzero().squeeze(1)
                        rows = rows[: len(sight.positions)]
                        at = sight.positions.to(sight.passage.gradient.device)
                        gradient[rows] = sight.passage.gradient[at].float().cpu()
                for part in wants:
                    part.close(number, spot, mode, gradient)


def _look(number: int, sight: Sight, parts: Sequence[RemovalMeasure]) -> None:
    wanted: dict[Change, Tensor] = {}
    asked = [part.asks(number, sight.mode, sight.window) for part in parts]
    for part, one in zip(parts, asked, strict=True):
        part.opened(number, sight)
        wanted |= one
    for change, found in sight.changed(wanted):
        for part, one in zip(parts, asked, strict=True):
            if change in one:
                part.take(number, sight, change, found)


def _sights(
    model: AdaptedModel, spot: Spot, mode: Mode, beginning: Beginning, gradient: bool
) -> Iterator[Sight]:
    window_of_token = spot.where.predicting.nonzero()[:, 0]
    window_of_row = spot.window_of_row
    for window in window_of_token.unique().tolist():
        predicting = spot.where.wanted[window]
        # What stands behind the last scored position changes nothing that is scored.
        end = int(predicting.nonzero()[-1]) + 1
        tokens = (window_of_token == window).nonzero().squeeze(1)
        targets = spot.where.targets[tokens]

        def loss(logits: Tensor, targets: Tensor = targets) -> Tensor:
            chosen = targets.to(logits.device)
            return functional.cross_entropy(logits.float(), chosen, reduction="sum")

        passage = open_passage(
            model,
            spot.variants[mode],
            spot.site,
            spot.batch.ids[window, :end].to(model.device),
            spot.streams[mode][window, :end],
            predicting[:end],
            beginning,
            loss if gradient else None,
        )
        positions = spot.rows[window].nonzero().squeeze(1)
        inside = positions < end
        rows = (window_of_row == window).nonzero().squeeze(1)[inside]
        yield Sight(
            *(spot, mode, window, passage, positions[inside]),
            spot.strengths[rows.to(spot.strengths.device)],
            tokens,
            targets,
            functional.log_softmax(passage.logits.float(), dim=-1),
        )

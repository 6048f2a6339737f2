"""Steering by one latent before and after a fit (section 5.2, appendix A.1).

    x ↦ x + α (x·v) v        v the latent's decoder direction, of unit norm (equation 8)

1. `choose_texts` splits held-out windows by whether the latent fires: positive and negative texts,
   half of each to tune α, half to test.
2. `steer` scores tuning texts at every α, the others at the chosen one: mean log p over a text's
   tokens, the log-probability at position t being that of the token at t + 1.
3. α is the one that raises the tuning texts' positives most less what it raises negatives; changes
   are measured on the other half, for the latent and for random directions tuned alike.

Changes are in points: 100 is the range of mean log p over all texts before steering, without fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from lorascope.activations.tokens import Window
from lorascope.adapt.divergence import token_losses
from lorascope.adapt.evaluation import scored_batches
from lorascope.adapt.head import Head, final_states
from lorascope.adapt.ways import Way
from lorascope.config import Settings
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.models.hooks import replace, run_until
from lorascope.models.sites import Site
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import Interval, prediction_interval

_TAIL = 0.05  # 90 % intervals, as the paper's
# Without the fit, with it, and the fit's change, on either kind of text.
NAMES = {
    "positive": (
        "steering.before_positive",
        "steering.after_positive",
        "steering.change_positive",
    ),
    "negative": (
        "steering.before_negative",
        "steering.after_negative",
        "steering.change_negative",
    ),
}


class Steering(Settings):
    """How steering is measured.

    Attributes:
        alphas: strengths to choose from; 0 is always among them.
        texts: most positive texts of a latent, and most negative ones.
        random: random directions tuned and tested likewise.
        seed: decides which negatives are taken, the halves, and the random directions.
    """

    alphas: tuple[float, ...] = Field(default=(-1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0, 4.0))
    texts: int = Field(default=100, ge=4)
    random: int = Field(default=8, ge=2)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Texts:
    """A latent's texts, each one window, and which of them tune α."""

    positive: list[Window]
    negative: list[Window]

    @property
    def all(self) -> list[Window]:
        """Positive texts, then negative ones."""
        return [*self.positive, *self.negative]

    @property
    def tuning(self) -> Bool[Tensor, " texts"]:
        """True for every second text of each kind."""
        kinds = (len(self.positive), len(self.negative))
        return torch.cat([torch.arange(count) % 2 == 0 for count in kinds])

    @property
    def fires(self) -> Bool[Tensor, " texts"]:
        """True for positive texts."""
        return torch.arange(len(self.positive) + len(self.negative)) < len(self.positive)


@dataclass(frozen=True, eq=False)
class Steered:
    """Mean log p of every text, for each direction and α; the latent's direction stands first.

    Attributes:
        alphas: 0 first.
        texts: of the latent.
        scores: {way: [directions, alphas, texts]}, nats/token; texts for testing have none (nan)
            at an α that was not chosen.
    """

    alphas: tuple[float, ...]
    texts: Texts
    scores: dict[str, Float[Tensor, "directions alphas texts"]]


@torch.no_grad()
def firing_texts(
    module: nn.Module,
    tokenizer: Any,
    windows: Sequence[Window],
    site: Site,
    dictionary: Dictionary,
) -> Float[Tensor, "windows n"]:
    """Each latent's largest activation over the kept tokens of each window, on the bare model."""
    numbered = [Window(w.ids, w.response, number) for number, w in enumerate(windows)]
    found = torch.zeros(len(windows), dictionary.n_latents)
    for batch, _ in scored_batches(tokenizer, numbered):
        device = module.get_input_embeddings().weight.device  # type: ignore[operator]
        ids, mask = batch.ids.to(device), batch.attended.long().to(device)
        stream = run_until(module, [site], ids, mask)[site]
        latents = dictionary.encode(stream.to(dictionary.directions))
        latents = latents.masked_fill(~batch.kept.to(device)[..., None], 0)
        found[batch.documents] = latents.amax(1).float().cpu()
    return found


def choose_texts(
    windows: Sequence[Window],
    firing: Float[Tensor, " windows"],
    latent: int,
    settings: Steering,
) -> Texts:
    """Positive texts are those in which the latent fires most, negative ones some where it is
    silent.

    Args:
        firing: a column of `firing_texts`.
        latent: its number, for the message and the draw.

    Raises:
        InputError: fewer than four texts of either kind.
    """
    long_enough = torch.tensor([len(window.ids) > 2 for window in windows])
    active = int(((firing > 0) & long_enough).sum())
    ordered = firing.masked_fill(~long_enough, 0).argsort(descending=True, stable=True)
    fires = ordered[: min(active, settings.texts)]
    silent = ((firing == 0) & long_enough).nonzero().squeeze(1)
    for chosen, what in ((fires, "fires in"), (silent, "is silent in")):
        if len(chosen) < 4:
            raise InputError(
                f"latent {latent} {what} {len(chosen)} of {len(windows)} texts, steering needs 4: "
                "give more texts, or another latent"
            )
    random = generator(settings.seed, "negative texts", latent)
    drawn = silent[torch.randperm(len(silent), generator=random)[: settings.texts]]
    return Texts([windows[i] for i in fires], [windows[i] for i in drawn])


@torch.no_grad()
def steer(
    module: nn.Module,
    tokenizer: Any,
    texts: Texts,
    ways: Mapping[str, Way],
    site: Site,
    direction: Float[Tensor, " d"],
    settings: Steering,
) -> Steered:
    """Score a latent's texts under every way, direction and α.

    Args:
        ways: `spliced` and `adapted`, say: without and with the fit. What is steered is the stream
            after whatever stands at the site.
        direction: what the latent writes; its norm does not matter.
    """
    alphas = (0.0, *(alpha for alpha in settings.alphas if alpha))
    random = isotropic(settings.random, len(direction), generator(settings.seed, "directions"))
    directions = torch.cat([(direction / direction.norm())[None].cpu().float(), random])
    head, found = Head.of(module), {}
    tuning = texts.tuning
    for name, way in ways.items():
        shape = (len(directions), len(alphas), len(tuning))
        scores = torch.full(shape, torch.nan, dtype=torch.float64)
        with way():
            scores[:, 0] = _scores(module, tokenizer, texts.all, head)
            for row, v in enumerate(directions):
                for number, alpha in enumerate(alphas[1:], 1):
                    with steered(module, site, v, alpha):
                        part = _scores(module, tokenizer, _chosen(texts, tuning), head)
                    scores[row, number, tuning] = part
                best = _best(texts, scores[row])
                with steered(module, site, v, alphas[best]):
                    part = _scores(module, tokenizer, _chosen(texts, ~tuning), head)
                scores[row, best, ~tuning] = part
        found[name] = scores
    return Steered(alphas, texts, found)


def _chosen(texts: Texts, chosen: Bool[Tensor, " texts"]) -> list[Window]:
    return [window for window, taken in zip(texts.all, chosen.tolist(), strict=True) if taken]


@contextmanager
def steered(
    module: nn.Module, site: Site, direction: Float[Tensor, " d"], alpha: float
) -> Iterator[None]:
    """Within the `with`, the stream at `site` is x + α (x·v) v, after what stands there already.

    Args:
        direction: v, of unit norm.
    """

    def change(x: Float[Tensor, "batch seq d"]) -> Float[Tensor, "batch seq d"]:
        v = direction.to(x)
        return x + alpha * (x @ v)[..., None] * v

    with replace(module, site, change):
        yield


def steering_estimates(
    found: Steered,
    place: Key,
    *,
    before: str = "spliced",
    after: str = "adapted",
) -> list[Estimate]:
    """What steering changes on test texts, without and with the fit, and the fit's change of it.

    Measures end in `positive` and `negative`: texts where the latent fires, and where it does not.
    The random directions are tuned and tested on the same texts.

    Args:
        before, after: names of the two ways in `found.scores`.
    """
    estimates = []
    test, fires = ~found.texts.tuning, found.texts.fires
    changes = {way: _tuned_changes(found, way, found.scores[before]) for way in (before, after)}
    for kind, chosen in (("positive", test & fires), ("negative", test & ~fires)):
        three = (changes[before], changes[after], changes[after] - changes[before])
        for measure, values in zip(NAMES[kind], three, strict=True):
            mean, interval = _mean(values[0][chosen])
            levels = values[1:, chosen].mean(1).tolist()
            low, high = prediction_interval(levels)
            chance = Null("random directions", sum(levels) / len(levels), low, high)
            estimates.append(
                Estimate(measure, mean, interval, int(chosen.sum()), "points", (chance,), place)
            )
    return estimates


def best_alpha(found: Steered, way: str, direction: int = 0) -> float:
    """The α that tuning chooses for a direction; 0 where none helps."""
    return found.alphas[_best(found.texts, found.scores[way][direction])]


def _best(texts: Texts, scores: Float[Tensor, "alphas texts"]) -> int:
    changes = scores - scores[:1]
    tuning, fires = texts.tuning, texts.fires
    wanted = changes[:, tuning & fires].mean(1)
    unwanted = changes[:, tuning & ~fires].mean(1)
    return int((wanted - unwanted.clamp(min=0)).argmax())


def _tuned_changes(
    found: Steered, way: str, unfitted: Float[Tensor, "directions alphas texts"]
) -> Float[Tensor, "directions texts"]:
    """Change of each text by each direction at its own α, in points of the unfitted range."""
    unsteered = unfitted[0, 0]
    span = (unsteered.max() - unsteered.min()).clamp(min=1e-12)
    rows = []
    for scores in found.scores[way]:
        best = _best(found.texts, scores)
        rows.append(100 * (scores[best] - scores[0]) / span)
    return torch.stack(rows)


def _mean(values: Float[Tensor, " texts"]) -> tuple[float, Interval]:
    return ratio(values, torch.ones_like(values), tail=_TAIL)


def _scores(
    module: nn.Module, tokenizer: Any, texts: Sequence[Window], head: Head
) -> Float[Tensor, " texts"]:
    """Mean log p over each text's tokens that are predicted at a kept position."""
    sums = torch.zeros(2, len(texts), dtype=torch.float64)
    numbered = [Window(w.ids, w.response, number) for number, w in enumerate(texts)]
    for batch, where in scored_batches(tokenizer, numbered):
        device = module.get_input_embeddings().weight.device  # type: ignore[operator]
        ids, mask = batch.ids.to(device), batch.attended.long().to(device)
        states = final_states(module, ids, mask)[:, :-1]
        losses = token_losses(states[where.predicting.to(states.device)], where.targets, head)
        sums[0].index_add_(0, where.documents, -losses.double().cpu())
        sums[1].index_add_(0, where.documents, torch.ones(len(losses), dtype=torch.float64))
    return sums[0] / sums[1].clamp(min=1)

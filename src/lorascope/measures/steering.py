"""Steering by one latent before and after a fit (section 5.2, appendix A.1).

    x ↦ x + α (x·v) v        v the latent's decoder direction, of unit norm (equation 8)

1. `choose_texts` splits held-out windows by whether the latent fires: positive and negative texts,
   half of each to tune α, half to test.
2. `steer` scores tuning texts at every α, the others at the chosen one: mean log p over a text's
   tokens, the log-probability at position t being that of the token at t + 1.
3. α is the one that raises the tuning texts' positives most less what it raises negatives; changes
   are measured on the other half.
4. The same for random directions u of equal displacement, x ↦ x ± α (x·v) u: at every token the
   stream moves as far as by the latent. Of the two signs the tuning texts choose.

Changes are in points: 100 is the range of mean log p over all texts before steering, without fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lorascope.activations.tokens import Window
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.measures.paired_nulls import drawn, over_tokens
from lorascope.measures.settings import Steering
from lorascope.models.hooks import run_until
from lorascope.models.sites import Site
from lorascope.outputs.conditions import Condition, steered
from lorascope.outputs.evaluation import evaluate
from lorascope.outputs.head import Head
from lorascope.outputs.scoring import scored_batches
from lorascope.randomness import generator
from lorascope.results import Estimate, Key
from lorascope.results.null_names import EQUAL_DISPLACEMENT

# The conditions compared, as fits name them.
_SPLICED, _ADAPTED = "spliced", "adapted"
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


@dataclass(frozen=True, eq=False)
class LatentTexts:
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
    """Mean log p of every text, nats/token.

    Texts for testing have none (nan) at an α or sign that was not chosen.

    Attributes:
        alphas: 0 first.
        texts: of the latent.
        scores: {condition: [alphas, texts]} of the latent's direction.
        random: {condition: [directions, (unsteered, +, −), texts]}, of equal displacement.
    """

    alphas: tuple[float, ...]
    texts: LatentTexts
    scores: dict[str, Float[Tensor, "alphas texts"]]
    random: dict[str, Float[Tensor, "directions 3 texts"]]


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
        ids, mask = batch.inputs(device)
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
) -> LatentTexts:
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
    return LatentTexts([windows[i] for i in fires], [windows[i] for i in drawn])


@torch.no_grad()
def steer(
    module: nn.Module,
    tokenizer: Any,
    texts: LatentTexts,
    conditions: Mapping[str, Condition],
    site: Site,
    direction: Float[Tensor, " d"],
    settings: Steering,
) -> Steered:
    """Score a latent's texts under every way, direction and α.

    Args:
        conditions: `spliced` and `adapted`, say: without and with the fit. What is steered is the
            stream after whatever stands at the site.
        direction: what the latent writes; its norm does not matter.
    """
    alphas = (0.0, *(alpha for alpha in settings.alphas if alpha))
    v = (direction / direction.norm()).cpu().float()
    random = isotropic(settings.random, len(v), generator(settings.seed, "directions"))
    scoring = _Scoring(module, tokenizer, texts, site)
    scores, controls = {}, {}
    for name, condition in conditions.items():
        with condition():
            unsteered = scoring.unsteered()
            own = scoring.tuned(unsteered, [(v, v, alpha) for alpha in alphas[1:]])
            strength = alphas[_best(texts, own)]
            rows = [
                scoring.tuned(unsteered, [(v, u, strength), (v, u, -strength)], moved=True)
                for u in random
            ]
        scores[name], controls[name] = own, torch.stack(rows)
    return Steered(alphas, texts, scores, controls)


Change = tuple[Float[Tensor, " d"], Float[Tensor, " d"], float]


class _Scoring:
    """Scores of a latent's texts under changes of the stream, as the model runs just now."""

    def __init__(self, module: nn.Module, tokenizer: Any, texts: LatentTexts, site: Site) -> None:
        self._module, self._tokenizer, self._site = module, tokenizer, site
        self._texts, self._head = texts, Head.of(module)

    def unsteered(self) -> Float[Tensor, " texts"]:
        return _scores(self._module, self._tokenizer, self._texts.all, self._head)

    def tuned(
        self, unsteered: Float[Tensor, " texts"], changes: Sequence[Change], moved: bool = False
    ) -> Float[Tensor, "changes texts"]:
        """[unsteered, then every change]: tuning texts under all, test texts under the best one.

        Args:
            changes: (v, u, α): x + α (x·v) u in place of x.
            moved: leave unsteered out of the choice.
        """
        tuning = self._texts.tuning
        found = torch.full((1 + len(changes), len(tuning)), torch.nan, dtype=torch.float64)
        found[0] = unsteered
        for row, change in enumerate(changes, 1):
            found[row, tuning] = self._steered(change, tuning)
        best = _best(self._texts, found, moved)
        if best:
            found[best, ~tuning] = self._steered(changes[best - 1], ~tuning)
        return found

    def _steered(self, change: Change, chosen: Bool[Tensor, " texts"]) -> Float[Tensor, " some"]:
        v, u, alpha = change
        with steered(self._module, self._site, v, alpha, u):
            part = _chosen(self._texts, chosen)
            return _scores(self._module, self._tokenizer, part, self._head)


def _chosen(texts: LatentTexts, chosen: Bool[Tensor, " texts"]) -> list[Window]:
    return [window for window, taken in zip(texts.all, chosen.tolist(), strict=True) if taken]


def steering_estimates(found: Steered, place: Key) -> list[Estimate]:
    """What steering changes on test texts, without and with the fit, and the fit's change of it.

    Measures end in `positive` and `negative`: texts where the latent fires, and where it does not.
    """
    estimates = []
    test, fires = ~found.texts.tuning, found.texts.fires
    before, after = (
        _tuned_changes(found, condition, found.scores[_SPLICED])
        for condition in (_SPLICED, _ADAPTED)
    )
    for kind, chosen in (("positive", test & fires), ("negative", test & ~fires)):
        three = zip(NAMES[kind], (before, after, after - before), strict=True)
        for measure, values in three:
            own, *random = values[:, chosen]
            mean = over_tokens(torch.ones_like(own))
            nulls = tuple(drawn(EQUAL_DISPLACEMENT, own, random, mean, rival=True))
            total = int(chosen.sum())
            estimates.append(Estimate(measure, *mean(own), total, "points", nulls, place))
    return estimates


def text_changes(found: Steered) -> dict[str, dict[str, list[float]]]:
    """{kind of texts: {condition: change of each test text's mean log p by steering, points}}.

    What `steering_estimates` has the means of (figures 7 and 10 are histograms of them).
    """
    test, fires = ~found.texts.tuning, found.texts.fires
    changes = {
        condition: _tuned_changes(found, condition, found.scores[_SPLICED])[0]
        for condition in (_SPLICED, _ADAPTED)
    }
    return {
        kind: {condition: values[chosen].tolist() for condition, values in changes.items()}
        for kind, chosen in (("positive", test & fires), ("negative", test & ~fires))
    }


def best_alpha(found: Steered, condition: str) -> float:
    """The α that tuning chooses for the latent; 0 where none helps."""
    return found.alphas[_best(found.texts, found.scores[condition])]


def _best(texts: LatentTexts, scores: Float[Tensor, "changes texts"], moved: bool = False) -> int:
    changes = scores - scores[:1]
    tuning, fires = texts.tuning, texts.fires
    wanted = changes[:, tuning & fires].mean(1)
    unwanted = changes[:, tuning & ~fires].mean(1)
    gain = wanted - unwanted.clamp(min=0)
    return int(gain[1:].argmax()) + 1 if moved else int(gain.argmax())


def _tuned_changes(
    found: Steered, condition: str, unfitted: Float[Tensor, "alphas texts"]
) -> Float[Tensor, "directions texts"]:
    """Change of each text, in points of the unfitted range: by the latent, then by the others."""
    unsteered = unfitted[0]
    span = (unsteered.max() - unsteered.min()).clamp(min=1e-12)
    own = found.scores[condition]
    rows = [own[_best(found.texts, own)] - own[0]]
    rows += [one[_best(found.texts, one, moved=True)] - one[0] for one in found.random[condition]]
    return 100 * torch.stack(rows) / span


def _scores(
    module: nn.Module, tokenizer: Any, texts: Sequence[Window], head: Head
) -> Float[Tensor, " texts"]:
    """Mean log p over each text's tokens that are predicted at a kept position."""
    numbered = [Window(w.ids, w.response, number) for number, w in enumerate(texts)]
    one = evaluate(module, tokenizer, numbered, nullcontext, {"": nullcontext}, head=head)[""]
    return -one.loss / one.tokens.clamp(min=1)

"""Can an adapter's latents be read? Two numbers, each beside latents that it does not name.

1. A latent that is read should tell prompts about the topic from others, by its largest activation
   on a prompt's own tokens: the area under the curve, beside latents that fire as often.
2. A latent that is written should promote the tokens of the style: the mean effect on their logits,
   beside latents drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lorascope.activations.tokens import Window
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.matching import matched
from lorascope.latent_adapters.reading import ActiveLatents, FrozenSite, Seen
from lorascope.measures.latent_directions import token_logits
from lorascope.models.adapted import AdaptedModel
from lorascope.randomness import generator
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import ANY_LATENTS, OTHER_DENSITY
from lorascope.stats.intervals import normal_interval, prediction_interval

# Latents like each that is read, style tokens, and draws of random latents to write.
_LIKE, STYLE_TOKENS, _DRAWS = 20, 40, 40


@torch.no_grad()
def topic_auc(
    reading: FrozenSite,
    seen: Sequence[Seen],
    about: Bool[Tensor, " prompts"],
    named: Int[Tensor, " latents"],
    place: Key,
) -> Estimate | None:
    """How well latents that are read tell the topic's prompts from others; None without either.

    Args:
        seen: held-out records at the site; about: which are about the topic.
        named: latents that are read.
    """
    if not len(named) or about.all() or not about.any():
        return None
    largest = _largest(seen, reading.dictionary.n_latents)
    own = _auc(largest[:, named.cpu()], about)
    beside = matched(reading, seen, named, _LIKE).cpu()
    others = torch.stack([_auc(largest[:, row], about).mean() for row in beside])
    low, high = normal_interval(others)
    null = Null(OTHER_DENSITY, float(others.mean()), low, high, True, normal_interval(own - others))
    n = len(named)
    value = float(own.mean())
    return Estimate("latent.topic_auc", value, normal_interval(own), n, "AUC", (null,), place)


@torch.no_grad()
def style_estimate(
    model: AdaptedModel,
    adapter: LatentAdapter,
    codes: ActiveLatents,
    style: Int[Tensor, " tokens"],
    seed: int,
    place: Key,
) -> Estimate | None:
    """How far latents that are written promote the style's tokens; None where none is written.

    Args:
        adapter: its written latents are the named ones.
        codes: latents active on tokens of changed training examples, whose mean says in which
            direction each latent is written.
        style: ids of the style's tokens.
    """
    _, named = adapter.support()
    if not len(named) or not len(style):
        return None
    read, write = adapter.factors()
    amount = codes.read(read.cpu()).mean(0) * adapter.scale.cpu()
    signs = (amount @ write.cpu()[:, named.cpu()]).sign()
    directions = adapter.dictionary.directions
    own = _promoted(model, directions[named], style) * signs
    free = torch.ones(len(directions), dtype=torch.bool)
    free[named.cpu()] = False
    others = free.nonzero().squeeze(1)
    levels = []
    for draw in range(_DRAWS):
        random = generator(seed, "style", draw)
        chosen = others[torch.randperm(len(others), generator=random)[: len(named)]]
        values = _promoted(model, directions[chosen.to(directions.device)], style)
        levels.append(float((values * signs[: len(values)]).mean()))
    low, high = prediction_interval(levels)
    level = sum(levels) / len(levels)
    null = Null(ANY_LATENTS, level, low, high, rival=True, draws=len(levels))
    value, n = float(own.mean()), len(named)
    unit = "standard deviations"
    return Estimate("latent.style", value, normal_interval(own), n, unit, (null,), place)


def style_tokens(
    changed: Sequence[Window], others: Sequence[Window], special: Sequence[int], vocabulary: int
) -> Int[Tensor, " tokens"]:
    """Tokens that changed responses have and all others lack: largest z of the log-odds.

    Monroe et al. 2008 with half a count as the prior; of those alone that are above 2.
    """
    counts = [_counted(windows, vocabulary) for windows in (changed, others)]
    for count in counts:
        count[torch.tensor(list(special), dtype=torch.long)] = 0
    first, second = (count + 0.5 for count in counts)
    odds = [(one / (one.sum() - one)).log() for one in (first, second)]
    z = (odds[0] - odds[1]) / (1 / first + 1 / second).sqrt()
    found = z.topk(min(STYLE_TOKENS, vocabulary))
    return found.indices[found.values > 2]


def _counted(windows: Sequence[Window], vocabulary: int) -> Float[Tensor, " vocab"]:
    ids = [i for w in windows for i, mine in zip(w.ids, w.response, strict=True) if mine]
    return torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=vocabulary).double()


def _promoted(
    model: AdaptedModel, directions: Float[Tensor, "n d"], style: Int[Tensor, " tokens"]
) -> Float[Tensor, " n"]:
    """Mean over style tokens of a direction's logits, in deviations over the vocabulary."""
    logits = token_logits(model, directions).double()
    return logits[:, style].mean(1) / logits.std(1).clamp(min=1e-12)


def _largest(seen: Sequence[Seen], n: int) -> Float[Tensor, "prompts n"]:
    """Each latent's largest activation on the tokens of a prompt, response left out."""
    found = torch.zeros(len(seen), n)
    for row, one in enumerate(seen):
        own = ~torch.tensor(one.window.response, dtype=torch.bool)[one.acted_on]
        active = torch.repeat_interleave(own, one.codes.counts.long())
        latents = one.codes.latent.long()[active]
        found[row].scatter_reduce_(0, latents, one.codes.value[active], "amax")
    return found


def _auc(
    values: Float[Tensor, "prompts k"], about: Bool[Tensor, " prompts"]
) -> Float[Tensor, " k"]:
    """Area under the curve of each column, from either side: at least one half."""
    inside, outside = values[about][:, None], values[~about][None]
    area = ((inside > outside).double() + 0.5 * (inside == outside).double()).mean((0, 1))
    return torch.maximum(area, 1 - area)

"""Loss recovered: how much of the base model's loss remains with a dictionary in the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.settings import Capture
from lorascope.activations.shards import BASE
from lorascope.activations.tokens import Window
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.recovery import spliced_rows
from lorascope.measures.rows import rebuilt
from lorascope.measures.yardsticks import MEAN, PCA, Stream, principal
from lorascope.models.adapted import AdaptedModel
from lorascope.models.sites import Site, parse_site
from lorascope.outputs.scoring import batches_for_logits, first_documents, run
from lorascope.results import Estimate, Key, Null
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import or_point

Rows = Float[Tensor, "rows d"]
Replacement = Callable[[Rows], Rows]


# A site with what stands there: MEAN, a number of principal components, or a dictionary's place.
_Place = tuple[Site, str | int | Key]


@torch.no_grad()
def loss_recovered(
    model: AdaptedModel,
    windows: Sequence[Window],
    dictionaries: Mapping[Key, Dictionary],
    streams: Mapping[str, Stream],
    counts: Mapping[Key, int],
    *,
    capture: Capture | None = None,
    most: int = 8192,
) -> list[Estimate]:
    """The share of the loss that each base dictionary keeps, spliced into the base at its site.

    One pass of the base over the windows of the first documents that hold at most `most` tokens,
    and from the site on one more for the mean of the training rows, for each dictionary and for
    each number of principal components. Where the mean costs nothing, or the interval of what it
    costs holds 0, there is no such number: a share of what may be nothing is none.

    Args:
        dictionaries: by place, whose site says where it is spliced.
        streams: {site: the base stream there}.
        counts: {place: how many principal components stand beside the dictionary}.
        capture: which tokens are left out, and the tokens of one forward pass.
    """
    settings = capture or Capture()
    chosen = first_documents(windows, most)
    put = _replacements(dictionaries, streams, counts)
    sites = sorted({site for site, _ in put})
    limits = {site: _limit(streams[site.name], settings) for site in sites}
    size = max((window.document for window in chosen), default=-1) + 1
    sums = torch.zeros(len(put) + 2, size, dtype=torch.float64)
    responses = any(any(window.response) for window in chosen)
    for batch, where in batches_for_logits(model, chosen, responses, settings):
        base = run(model, BASE, sites, batch, where)
        losses = where.losses(where.log_probabilities(base.logits))
        rows = spliced_rows(where, base.streams, limits)
        scored = [torch.ones_like(losses), losses]
        for (site, _), replacement in put.items():
            stream = base.streams[site]
            kept = rows.to(stream.device)
            changed = stream.clone()
            changed[kept] = replacement(stream[kept].float()).to(stream)
            scored.append(where.losses(where.log_probabilities(base.resume(site, changed))))
        for row, values in zip(sums, scored, strict=True):
            row.index_add_(0, where.documents, values.double().cpu())
    sums = sums[:, sums[0] > 0]
    by_place = dict(zip(put, sums[2:], strict=True))
    found: list[Estimate] = []
    for place in dictionaries:
        site = parse_site(place.site)
        sides = [sums[1], *(by_place[site, what] for what in (MEAN, place, counts[place]))]
        found += _estimate(sides, sums[0], place)
    return found


def _replacements(
    dictionaries: Mapping[Key, Dictionary],
    streams: Mapping[str, Stream],
    counts: Mapping[Key, int],
) -> dict[_Place, Replacement]:
    put: dict[_Place, Replacement] = {}
    for place, dictionary in dictionaries.items():
        site, stream = parse_site(place.site), streams[place.site]
        put[site, MEAN] = partial(_mean, stream)
        put[site, place] = partial(rebuilt, dictionary)
        if (site, counts[place]) not in put:
            axes = principal(stream.covariance, counts[place])
            put[site, counts[place]] = partial(_projected, stream, axes)
    return put


def _mean(stream: Stream, rows: Rows) -> Rows:
    return stream.mean.to(rows).expand_as(rows)


def _projected(stream: Stream, axes: Float[Tensor, "k d"], rows: Rows) -> Rows:
    mean, axes = stream.mean.to(rows), axes.to(rows)
    return mean + ((rows - mean) @ axes.T) @ axes


def _limit(stream: Stream, settings: Capture) -> float:
    """The base norm above which a token is an attention sink, as the capture left them out."""
    return (settings.outlier_multiple or torch.inf) * stream.rows.norm(dim=1).median().item()


def _estimate(
    losses: Sequence[Tensor], tokens: Float[Tensor, " documents"], place: Key
) -> list[Estimate]:
    """One estimate from losses by document: of the base, then with the mean, the dictionary and
    the components spliced in. None where what the mean costs may be nothing."""
    base, with_mean, spliced, with_components = losses
    cost = with_mean - base
    _, (low, _) = ratio(cost, tokens)
    if not cost.sum() > 0 or low <= 0:
        return []
    value, interval = ratio(with_mean - spliced, cost, tokens)
    pca, theirs = ratio(with_mean - with_components, cost, tokens)
    _, gap = ratio(with_components - spliced, cost, tokens)
    nulls = (
        Null.exact(MEAN, 0.0, rival=True),
        Null(PCA, pca, *or_point(pca, theirs), rival=True, difference=gap),
    )
    n = int(tokens.sum())
    return [Estimate("yardstick.loss_recovered", value, interval, n, "share", nulls, place)]

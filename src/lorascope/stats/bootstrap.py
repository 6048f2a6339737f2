"""Documents drawn with replacement, for numbers that are no smooth function of sums."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from scipy import stats

from lorascope.stats.documents import Statistic, weighed
from lorascope.stats.intervals import MIN_DOCUMENTS, TAIL, UNKNOWN, Interval, t_quantile

# Counts held at once while resampling: 4 million take 32 MB.
_COUNTS = 4_000_000


def bootstrap(
    statistic: Statistic,
    per_document: Float[torch.Tensor, "documents m"],
    tokens: Float[torch.Tensor, " documents"],
    generator: torch.Generator,
    repeats: int = 2000,
    tail: float = TAIL,
) -> Interval:
    """Expanded percentile interval (Hesterberg 2015, section 4.3) of a statistic of sums.

    Percentiles of n documents are too narrow by √((n−1)/n) and know nothing of t: the share left
    out at each end is Φ(−√(n/(n−1)) t_{n−1}) instead. For a smooth statistic `documents.smooth` is
    the better interval; this one is for a crossing or a minimum. `statistic` maps the m summed
    columns of every repeat to one number a repeat; repeats in which it is nan are passed over.
    `generator` is on the CPU. (nan, nan) for fewer than 8 documents.
    """
    rows = weighed(per_document.detach().cpu().double(), tokens)
    documents = len(rows)
    if documents < MIN_DOCUMENTS:
        return UNKNOWN
    results = []
    step = max(1, _COUNTS // documents)
    for start in range(0, repeats, step):
        drawn = (min(step, repeats - start), documents)
        picks = torch.randint(documents, drawn, generator=generator)
        counts = torch.zeros(drawn, dtype=torch.float64)
        counts.scatter_add_(1, picks, torch.ones((), dtype=torch.float64).expand(drawn))
        results.append(statistic(counts @ rows))
    wide = math.sqrt(documents / (documents - 1)) * t_quantile(documents - 1, tail)
    left = float(stats.norm.cdf(-wide))
    bounds = torch.tensor([left, 1 - left], dtype=torch.float64)
    low, high = torch.nanquantile(torch.cat(results), bounds).tolist()
    return low, high

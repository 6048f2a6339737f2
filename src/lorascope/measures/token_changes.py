"""Token by token: whose −log p a fit makes better, and whose worse (section 6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.adapt.evaluation import Evaluated
from lorascope.measures.adapting import RANDOM, HeldOut, drawn_chance
from lorascope.results import Estimate, Key, Null
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import Interval

# Edges of a histogram over |change|: a quarter of a decade each, as in figure 8 from 1e-5 to 10.
EDGES = torch.logspace(-5, 1, 25, dtype=torch.float64)


def token_changes(before: Evaluated, after: Evaluated) -> Float[Tensor, " tokens"]:
    """−log p after less before, nats: below 0 where the token got better."""
    return after.losses.double() - before.losses.double()


def change_histogram(before: Evaluated, after: Evaluated) -> dict[str, list[float]]:
    """How many tokens get better and worse by how much.

    Returns:
        `edges` of |change| in nats, one more than bins; `better` and `worse`, tokens a bin. Changes
        beyond the edges count in the bin at that end; tokens that do not change at all in none.
    """
    changes = token_changes(before, after)
    found = {"edges": EDGES.tolist()}
    for name, chosen in (("better", -changes[changes < 0]), ("worse", changes[changes > 0])):
        inside = chosen.clamp(EDGES[0], EDGES[-1])
        bins = torch.bucketize(inside, EDGES, right=True).sub(1).clamp(max=len(EDGES) - 2)
        found[name] = torch.bincount(bins, minlength=len(EDGES) - 1).double().tolist()
    return found


def token_change_estimates(
    held_out: HeldOut, random: Sequence[HeldOut], place: Key
) -> list[Estimate]:
    """From spliced to adapted: the share of tokens that get worse; what all that get better win a
    token, and what all that get worse lose. The last two differ by the fit's gain in loss.

    Args:
        held_out: the ways spliced and adapted of one fit.
        random: adapted with random changes of equal size, a draw each.
    """
    before = held_out["spliced"]
    symmetric = Null.exact("as many better as worse", 0.5)
    parts: Mapping[str, tuple[str, tuple[Null, ...]]] = {
        "adapt.tokens_worse": ("share", (symmetric,)),
        "adapt.token_gains": ("nats/token", ()),
        "adapt.token_losses": ("nats/token", ()),
    }
    found = []
    for measure, (unit, chances) in parts.items():

        def measured(one: Evaluated, measure: str = measure) -> tuple[float, Interval]:
            return _by_document(measure, before, one)

        value, interval = measured(held_out["adapted"])
        drawn = drawn_chance(RANDOM, random, "adapted", measured)
        against = chances if drawn is None else (*chances, drawn)
        total = int(before.tokens.sum())
        found.append(Estimate(measure, value, interval, total, unit, against, place))
    return found


def _by_document(measure: str, before: Evaluated, after: Evaluated) -> tuple[float, Interval]:
    changes = token_changes(before, after)
    of_token = {
        "adapt.tokens_worse": (changes > 0).double(),
        "adapt.token_gains": (-changes).clamp(min=0),
        "adapt.token_losses": changes.clamp(min=0),
    }[measure]
    sums = torch.zeros_like(before.tokens).index_add_(0, before.owners.long(), of_token)
    return ratio(sums, before.tokens)

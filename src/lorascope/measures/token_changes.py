"""Token by token: whose −log p a fit makes better, and whose worse (section 6.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.measures.adapting import Conditions
from lorascope.measures.paired_nulls import Sums, drawn, over_tokens
from lorascope.outputs.evaluation import Evaluated
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import RANDOM_CHANGE, SYMMETRIC

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
    conditions: Conditions, random: Sequence[Conditions], place: Key
) -> list[Estimate]:
    """From spliced to adapted: the share of tokens that get worse; what all that get better win a
    token, and what all that get worse lose. The last two differ by the fit's gain in loss.

    Args:
        conditions: spliced and adapted of one fit.
        random: adapted with random changes of equal size, a draw each.
    """
    before = conditions["spliced"]
    mean = over_tokens(before.tokens)
    symmetric = Null.exact(SYMMETRIC, 0.5, rival=True)
    found = []
    for measure, unit, nulls in (
        ("adapt.tokens_worse", "share", (symmetric,)),
        ("adapt.token_gains", "nats/token", ()),
        ("adapt.token_losses", "nats/token", ()),
    ):
        sums = _by_document(measure, before, conditions["adapted"])
        value, interval = mean(sums)
        draws = [_by_document(measure, before, draw["adapted"]) for draw in random]
        # More tokens worse than better is a finding whatever random changes do.
        rival = measure != "adapt.tokens_worse" or value < symmetric.level
        against = (*nulls, *drawn(RANDOM_CHANGE, sums, draws, mean, rival=rival))
        total = int(before.tokens.sum())
        found.append(Estimate(measure, value, interval, total, unit, against, place))
    return found


def _by_document(measure: str, before: Evaluated, after: Evaluated) -> Sums:
    changes = token_changes(before, after)
    of_token = {
        "adapt.tokens_worse": (changes > 0).double(),
        "adapt.token_gains": (-changes).clamp(min=0),
        "adapt.token_losses": changes.clamp(min=0),
    }[measure]
    return torch.zeros_like(before.tokens).index_add_(0, before.owners.long(), of_token)

"""What a fit recovers in nats/token, and one block's part of what all blocks recover.

Both are of sums by document of one text, paired: section 4.1 has the first as "CE improvement",
section 6.3 the second.
"""

from __future__ import annotations

from collections.abc import Mapping

from lorascope.outputs.evaluation import Evaluated
from lorascope.results import Estimate, Key, Null
from lorascope.results.null_names import ALL_BLOCKS, NOTHING_FITTED
from lorascope.stats.documents import ratio
from lorascope.stats.quotients import quotient

# Of a ratio, and of what splicing costs: differences that count as none.
_MARGIN = 0.05


def recovered(conditions: Mapping[str, Evaluated], place: Key) -> Estimate:
    """L_spliced − L_adapted, nats/token, paired by document; above 0 the fit helps.

    Args:
        conditions: original, spliced and adapted on the same text.
    """
    tokens = conditions["spliced"].tokens
    value, interval = ratio(conditions["spliced"].loss - conditions["adapted"].loss, tokens)
    cost = conditions["spliced"].loss - conditions["original"].loss
    margin = _MARGIN * abs(float(cost.sum() / tokens.sum()))
    nothing = Null.exact(NOTHING_FITTED, 0.0, rival=True)
    total = int(tokens.sum())
    return Estimate(
        "adapt.recovered", value, interval, total, "nats/token", (nothing,), place, margin
    )


def next_share(
    next_block: Mapping[str, Evaluated], whole: Mapping[str, Evaluated], place: Key
) -> Estimate:
    """(L_spliced − L_next)/(L_spliced − L_all), paired by document.

    Args:
        next_block, whole: the conditions spliced and adapted of the two fits, on the same text.

    Raises:
        ValueError: they were measured on different texts.
    """
    tokens = whole["spliced"].tokens
    if not tokens.equal(next_block["spliced"].tokens):
        raise ValueError("the two fits were measured on different texts")
    recovered_by_next = next_block["spliced"].loss - next_block["adapted"].loss
    recovered_by_all = whole["spliced"].loss - whole["adapted"].loss
    value, interval = quotient(recovered_by_next, recovered_by_all, tokens)
    as_much = Null.exact(ALL_BLOCKS, 1.0, rival=True)
    total = int(tokens.sum())
    return Estimate("adapt.next_share", value, interval, total, "ratio", (as_much,), place, _MARGIN)

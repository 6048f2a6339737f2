"""Base latents that drift: sentences and the tables of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorascope.report.formatting import listing, number, plural, shown_token


def drift_sentence(one: Mapping[str, Any]) -> str:
    """How many base latents drift at a site, how many with a null adapter, and what they carry.

    Latents of one adapter move together, so a q of 0.05 each does not bound how many a null adapter
    shows: their own counts do.
    """
    counts = [int(count) for count in one["nulls"]]
    if not one["n_nulls"]:
        chance = "no null adapters, so nothing is called a drift"
    elif not counts:
        chance = (
            f"beside {plural(one['n_nulls'], 'null adapter')}, too few to say how many a null "
            "adapter shows"
        )
    else:
        more = "more than any" if beyond_nulls(one) > 0 else "no more than a null adapter"
        told = listing([str(n) for n in counts], 10)
        chance = f"{more}; null adapters beside each other: {told}"
    return (
        f"{one['site']}: {one['drifting']} of {one['looked_at']} base latents fire more, less or "
        f"elsewhere under {one['adapter']}, each at q ≤ 0.05 ({chance}); what they "
        f"write changes by {number(100 * one['share'])} % of the delta's energy."
    )


def beyond_nulls(one: Mapping[str, Any]) -> int:
    """How many more base latents drift at a site than for any null adapter beside the others."""
    return int(one["drifting"]) - max(map(int, one["nulls"]), default=0)


def drift_sections(facts: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """For the page: of each adapter its sentences and tables."""
    sections = []
    for name in names:
        own = [one for one in facts.get("drift", []) if one["adapter"] == name]
        if own:
            tables = [{"site": one["site"], "rows": list(map(_row, one["rows"]))} for one in own]
            sections.append(
                {
                    "adapter": name,
                    "sentences": [drift_sentence(one) for one in own],
                    "tables": [table for table in tables if table["rows"]],
                }
            )
    return sections


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {key: number(value) for key, value in row.items() if isinstance(value, float)}
    tokens = {
        side: ", ".join(f"“{shown_token(token)}”" for token in row[side])
        for side in ("gains", "loses")
    }
    share = number(100 * row["share"])
    return {**row, **numbers, **tokens, "share": f"{share} %"}

"""Who carries the phrases: sentences and the table of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorascope.reading.carried import ALL, HALF, WHOLE, Carrier
from lorascope.report.formatting import interval, number, plural, visible
from lorascope.report.latents import Browsed

# Latents named of a set, and groups of modules told in a sentence.
_NAMED, _GROUPS = 4, 2


def carried_sentences(carriers: Sequence[Carrier]) -> list[str]:
    """Which latents carry the phrases, how much of the delta there does, and which modules; nothing
    where none was tried."""
    whole = [one for one in carriers if one.phrase == ALL]
    latents = [one for one in whole if one.of_latents]
    modules = [one for one in whole if one.part == "modules"]
    found = [one for one in latents if one.carries]
    lines = []
    if found:
        least = min(found, key=lambda one: len(one.latents))
        lines.append(f"Carried by {_taken(least)}.")
    elif latents:
        alone = max(latents, key=lambda one: (len(one.latents) == 1, one.taken))
        most = max(latents, key=lambda one: one.taken)
        lines.append(f"No latent carries it alone: {_taken(alone)}.")
        if len(most.latents) > 1:
            lines.append(f"Most is taken away by {_taken(most)}.")
    lines += _of_the_delta([one for one in whole if one.part == WHOLE])
    if modules:
        told = "; ".join(
            f"{one.name} {_share(one)}, {number(100 * one.size)} % of the update"
            for one in modules[:_GROUPS]
        )
        lines.append(f"Without the updates of some modules so much of the phrases is gone: {told}.")
    return lines


def _of_the_delta(parts: Sequence[Carrier]) -> list[str]:
    """What goes at most at the sites, and without how few directions half does."""
    if not parts:
        return []
    most = max((one for one in parts if not one.directions), key=lambda one: one.taken)
    said = f"Without {most.name} {_share(most)} of the phrases is gone"
    if most.interval[1] < HALF:
        return [f"{said}: most of it is written by later blocks, so a later site may tell more."]
    few = [one for one in parts if one.directions]
    if not few:
        return [f"{said}."]
    # The fewest that take away half, or where none does so many as were tried.
    least = min(few, key=lambda one: (not one.carries, one.directions, -one.taken))
    if not least.carries:
        least = max(few, key=lambda one: (one.directions, one.taken))
    about = f"{number(100 * least.size)} % of its energy"
    if least.matched:
        about += f"; as many random directions of the delta take away {_whole(least.chance)} %"
    return [f"{said}; without {least.name} {_share(least)} ({about})."]


def _size(one: Carrier) -> str:
    if one.part == "modules":
        return f"{100 * one.size:.0f} % of the update"
    return f"{100 * one.size:.0f} % of its energy" if one.directions else ""


def _taken(one: Carrier) -> str:
    beside = (
        f"{plural(len(one.matched), 'matched latent' if len(one.latents) == 1 else 'matched set')}"
        f" on average {_whole(one.chance)} %"
        if one.matched
        else "nothing to match it with"
    )
    return f"{one.name}: removing it takes away {_share(one)} of the phrases ({beside})"


def _share(one: Carrier) -> str:
    low, high = one.interval
    # Where all prompts agree the interval has no width; that is no certainty.
    around = interval(100 * low, 100 * high) if low < high else ""
    return f"{_whole(one.taken)} %" + (f" {around}" if around else "")


def _whole(share: float) -> str:
    """A share in whole per cent, with a true minus sign."""
    return f"{100 * share:.0f}".replace("-", "−")


def carrier_rows(
    told: Sequence[Mapping[str, Any]], adapter: str, browsed: Sequence[Browsed]
) -> list[dict[str, Any]]:
    """The page's table, all phrases together first; delta latents with their places to browse."""
    numbers = {
        (str(each.head["site"]), str(each.head["adapter"])): (n, each.columns["latent"])
        for n, each in enumerate(browsed)
    }
    rows = []
    for one in sorted(map(Carrier.revived, told), key=lambda one: one.phrase != ALL):
        place, shown = numbers.get((one.site, adapter), (-1, []))
        links = [
            {"latent": latent, "href": f"#latent-{place}-{latent}"}
            for latent in one.latents[:_NAMED]
            if one.part == "delta" and latent in shown
        ]
        rows.append(
            {
                "phrase": visible(one.phrase) or "all together",
                "name": one.name,
                "links": links,
                "whole": one.whole,
                "left": one.left,
                "taken": _share(one),
                "matched": ", ".join(f"{_whole(share)} %" for share in one.matched) or "–",
                "size": _size(one),
                "carries": one.carries,
            }
        )
    return rows

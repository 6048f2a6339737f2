"""Numbers and counts as the report prints them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lorascope.measures.definitions import definition_of
from lorascope.results import Estimate, Key, Verdict

_MANY_SPACES: Final = 3
_CONTROLS: Final = {"\n": "↵", "\t": "⇥", "\r": "␍"}
SYMBOLS: dict[Verdict, str] = {
    "above": "▲",
    "below": "▼",
    "equal": "=",
    "not settled": "?",
    "no verdict": "·",
}


def sign(estimate: Estimate) -> str:
    """The verdict's sign; in brackets beside a reference alone, which claims nothing."""
    symbol = SYMBOLS[estimate.verdict]
    return f"({symbol})" if estimate.apart_from_reference else symbol


def verdict_words(estimate: Estimate) -> str:
    """The verdict; with its margin, or with how many sampled units would settle it."""
    if estimate.verdict == "equal":
        return f"equal within {number(estimate.margin or 0.0)}"
    if estimate.between is not None:
        above, below = (", ".join(names) for names in estimate.between)
        return f"not settled: above {above}; below {below}"
    settling, sampled = estimate.n_to_settle, definition_of(estimate.measure).sampled
    # Of a mean over sets or attributes these are the units.
    sampled = sampled and {"all sets": "sets", "all attributes": "attributes"}.get(
        estimate.key.topic, sampled
    )
    if settling and sampled:
        return f"not settled: about {settling:,} {sampled} would tell"
    if not estimate.judged:
        return (
            "no verdict: what it was measured with fails its own yardsticks, or massive "
            "coordinates hold most of it"
        )
    if estimate.apart_from_reference:
        return f"{estimate.verdict} its reference"
    return estimate.verdict


def difference_words(estimate: Estimate) -> str:
    """Value − chance with its interval; empty without a chance level."""
    null = estimate.headline
    if null is None:
        return ""
    gap = number(estimate.value - null.level)
    return " ".join(part for part in (gap, interval(*estimate.difference(null))) if part)


def detail(key: Key) -> str:
    """What else a number belongs to beside adapter, site, seed and dictionary."""
    counted = (("k={:,}", key.k), ("latent {:,}", key.latent), ("{:,} latents", key.size))
    parts = [form.format(value) for form, value in counted if value is not None]
    if key.massive:
        parts.append("without massive coordinates")
    if key.loss is not None:
        parts.append(f"at {number(key.loss)} nats/token")
    said = (key.about and definition_of(key.about).title, key.module, key.model, key.topic)
    return ", ".join(
        [*(word for word in said if word), *parts, *([key.setting] * bool(key.setting))]
    )


def number(value: float) -> str:
    """Three significant digits, a true minus sign, an en dash for nan."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size >= 1000:
        text = f"{size:,.0f}"
    elif size >= 100:
        text = f"{size:.0f}"
    elif size >= 0.001:
        text = f"{size:.{2 - math.floor(math.log10(size))}f}"
    else:
        text = "0" if size == 0 else f"{size:.1e}"
    return f"−{text}" if value < 0 else text


def interval(low: float, high: float) -> str:
    """'[low, high]', empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(low)}, {number(high)}]"


def span(values: Iterable[float]) -> str:
    """Smallest to largest of the values; one number where they print alike."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    low, high = number(min(known)), number(max(known))
    if low == high:
        return low
    # A dash between numbers reads as a minus where one of them is negative or has an exponent.
    return f"{low} to {high}" if min(known) < 0 or "e" in low + high else f"{low}–{high}"


def share(count: int, total: int, noun: str = "condition") -> str:
    """'all 12 conditions', '7 of 12 conditions', 'none of the 12 conditions'."""
    if total == 1:
        return f"the one {noun}" if count else f"no {noun} (of 1)"
    if count == total:
        return f"all {total} {noun}s"
    return f"none of the {total} {noun}s" if count == 0 else f"{count} of {total} {noun}s"


def plural(count: int, noun: str) -> str:
    """'1 site', '3 sites', '2 dictionaries'."""
    if count == 1:
        return f"{count} {noun}"
    ends_in_y = noun.endswith("y") and noun[-2:-1] not in tuple("aeiou")
    return f"{count} {noun[:-1]}ies" if ends_in_y else f"{count} {noun}s"


def shortened(text: str, most: int = 40) -> str:
    """A path or id of at most `most` characters: its last parts behind `…/`, else its two ends.

    Of an absolute path the last two parts are shown at most. Other texts keep both ends too.
    """
    text = text.rstrip("/") or text
    parts = text.split("/")
    absolute = text.startswith("/") and len(parts) > 3
    if len(text) <= most and not absolute:
        return text
    for first in range(len(parts) - 2 if absolute else 1, len(parts)):
        tail = "…/" + "/".join(parts[first:])
        if len(tail) <= most and parts[first]:
            return tail
    front = (most - 1) // 2
    return f"{text[:front]}…{text[len(text) - (most - 1 - front) :]}"


def study_title(settings: Mapping[str, Any], did: str) -> str:
    """The page's title: the study's name, and what it looked at; that alone without a name."""
    name = str(settings.get("name", ""))
    return f"{name} – {did}" if name else f"{did[:1].upper()}{did[1:]}"


def listing(names: Sequence[str], most: int = 6) -> str:
    """'a, b and c', cut after `most` names."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def shown_token(text: str) -> str:
    """A token in words and tables: `⟨0x14⟩`, `↵`, ␣ for each space at its ends, ␣×12 for many.

    Characters that show nothing, or turn the text around, are named by what they are.
    """
    if not text:
        return "⟨empty⟩"
    left, right = (len(text) - len(cut) for cut in (text.lstrip(" "), text.rstrip(" ")))
    if left == len(text):
        return _spaces(left)
    inside = text[left : len(text) - right]
    return f"{_spaces(left)}{''.join(map(_shown_character, inside))}{_spaces(right)}"


def _spaces(count: int) -> str:
    return "␣" * count if count <= _MANY_SPACES else f"␣×{count}"


def shown_passage(tokens: Sequence[str]) -> list[str]:
    """Tokens one after the other as text: spaces stay spaces, what shows nothing is named."""
    return ["".join(map(_shown_character, token)) for token in tokens]


def _shown_character(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    named = f"⟨0x{code:02X}⟩" if code < 256 else f"⟨U+{code:04X}⟩"
    return _CONTROLS.get(character, named)


def visible(text: str) -> str:
    """Text that can do nothing to a terminal or a line; a token's own space shows as ␣."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"␣{shown[1:]}" if shown.startswith(" ") else shown

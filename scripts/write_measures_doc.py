"""Write docs/measures.md from the definitions: `python scripts/write_measures_doc.py`."""

from __future__ import annotations

from pathlib import Path

from lorascope.measures.definitions import DEFINITIONS, Definition

PAGE = Path(__file__).resolve().parents[1] / "docs" / "measures.md"
SOURCE = "[arXiv 2605.28896](https://arxiv.org/abs/2605.28896)"
FOUND = {
    "above": "above chance",
    "below": "below chance",
    "either": "on either side of chance",
}
OPENING = f"""\
# Measures

Every number: what it is, its unit, what it comes to where there is nothing to find, and what its
interval varies. This page is written by `scripts/write_measures_doc.py` from
`src/lorascope/measures/definitions/`, the one place where a measure is defined; the report's
footnotes come from there too.

h_base is the residual stream of the base model at a site, h_adapted that of the adapted model, and
h_Δ = h_adapted − h_base, subtracted in float32. G is the base dictionary, D the delta dictionary.
Directions are rows of the decoder. Tables and equations are those of the audit paper,
{SOURCE}, where no other is named.

**Reading a number.** The interval is a 95 % interval of the value. A chance level is the same
number under a null, with the interval in which 95 % of its values fall there. The first null is
the headline null, the one the column `chance` of the results table holds; all of them are in
`results/chance_levels.csv`. A number is called above or below chance only where the two intervals
do not touch.
"""


def section(key: str, measure: Definition) -> str:
    """One measure."""
    lines = [
        f"## {measure.title}",
        f"```text\n{measure.formula}\n```",
        f"- Key: `{key}`\n"
        f"- Unit: {measure.unit}\n"
        f"- Chance levels: {measure.chance}\n"
        f"- Interval: {measure.interval}\n"
        f"- Something is found: {FOUND[measure.apart]}\n"
        f"- File: [`{measure.file}`](../src/lorascope/{measure.file})"
        + (f"\n- Source: {measure.source}" if measure.source else ""),
    ]
    return "\n\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    return "\n".join([OPENING, *(section(*item) for item in DEFINITIONS.items())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

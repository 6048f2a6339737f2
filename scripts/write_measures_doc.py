"""Write docs/measures.md from the definitions: `python scripts/write_measures_doc.py`."""

from __future__ import annotations

from pathlib import Path

from lorascope.measures.definitions import DEFINITIONS, Definition
from lorascope.measures.definitions.definition import MARGINS
from lorascope.measures.findings import RATE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "measures.md"
SOURCE = "[arXiv 2605.28896](https://arxiv.org/abs/2605.28896)"
FOUND = {
    "above": "above chance",
    "below": "below chance",
    "either": "on either side of chance",
}
MARGIN_WORDS = ", ".join(f"{value:g} {unit}" for unit, value in MARGINS.items())
OPENING = f"""\
# Measures

Every number: what it is, its unit, what it comes to where there is nothing to find, what its
interval varies, and which rival explanations its verdict has to leave. This page is written by
`scripts/write_measures_doc.py` from `src/lorascope/measures/definitions/`, the one place where a
measure is defined; the report's footnotes come from there too.

h_base is the residual stream of the base model at a site, h_adapted that of the adapted model, and
h_Δ = h_adapted − h_base, subtracted in float32. G is the base dictionary, D the delta dictionary.
Directions are rows of the decoder. Tables and equations are those of the audit paper,
{SOURCE}, where no other is named.

**Reading a number.** The interval is a 95 % interval of the value. A chance level is the same
number under a null, with the interval in which 95 % of its values fall there. A *rival* is a null
that stands for an explanation by which the adapter learned nothing; all other nulls are references.
The rival that is hardest to leave is the headline null, the one the column `chance` of the results
table holds; all nulls are in `results/chance_levels.csv`.

The verdict comes from the 95 % interval of the *difference*, value − level: *above* or *below* only
where it leaves zero to the same side for every rival; *equal* where it lies within the margin; *not
settled* otherwise. Where value and null come from the same documents, rows or prompts, the interval
is that of the paired difference; where the null is the same number drawn again (null adapters), it
is the prediction interval of one more draw; else it is made from both intervals (MOVER, Zou &
Donner 2008). There is no verdict for a number without an interval, or measured with a dictionary
that fails its yardsticks. Margins by unit, where a definition states no other:
{MARGIN_WORDS}.

**What is found.** The numbers marked *primary* answer one question each, declared in advance. Over
those of one adapter, Benjamini and Hochberg's procedure keeps the expected share of false findings
at {100 * RATE:.0f} %; null adapters go through the same procedure in the same run.
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
        f"- Rivals: {_rivals(measure)}\n"
        f"- Margin: {_margin(measure)}\n"
        f"- Something is found: {FOUND[measure.apart]}\n"
        f"- File: [`{measure.file}`](../src/lorascope/{measure.file})"
        + (f"\n- Primary: of {measure.primary}" if measure.primary and str(measure.primary) else "")
        + ("\n- Primary" if measure.primary and not str(measure.primary) else "")
        + (f"\n- Source: {measure.source}" if measure.source else ""),
    ]
    return "\n\n".join(lines) + "\n"


def _rivals(measure: Definition) -> str:
    if not measure.rivals:
        return "none: verdicts are against its first reference and are not counted"
    return ", ".join(measure.rivals) + (f": {measure.rival}" if measure.rival else "")


def _margin(measure: Definition) -> str:
    return "none" if measure.margin is None else f"{measure.margin:g} {measure.unit}"


def page() -> str:
    """The whole page."""
    return "\n".join([OPENING, *(section(*item) for item in DEFINITIONS.items())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

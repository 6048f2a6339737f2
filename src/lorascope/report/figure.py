"""A figure and what belongs to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt

from lorascope.report.pooled import replicates
from lorascope.report.result import Results
from lorascope.results import Estimate

HEATMAP_CAPTION: Final = (
    "Colour and upper line: the number and its verdict (▲ above, ▼ below, = equal within the "
    "margin, ? not settled, · no verdict; in brackets: beside a "
    "reference alone, which claims nothing). "
    "Lower line: the chance level it stands against."
)
VEGA_LITE_VERSION: Final = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        key: its file name.
        topic: key of the section it stands in.
        title: what it shows, with the unit.
        caption: how to read it.
        spec: Vega-Lite specification, data included.
    """

    key: str
    topic: str
    title: str
    caption: str
    spec: dict[str, Any]

    @classmethod
    def of(cls, key: str, topic: str, title: str, caption: str, chart: alt.TopLevelMixin) -> Figure:
        """A chart as a figure; how it looks is left to the page and to the export.

        A number that is not finite has no place on an axis: it becomes null, a missing mark.
        """
        # Altair would check each against its schema for longer than it takes to draw; tests do.
        spec = chart.to_dict(validate=False)
        spec.pop("config", None)
        return cls(key, topic, title, caption, _with_nulls(spec))


def _with_nulls(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _with_nulls(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_with_nulls(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def over_seeds_words(estimates: Sequence[Estimate], results: Results) -> str:
    """What a caption says of seeds; nothing where each condition has one number."""
    most = max((replicates(results, e) for e in estimates), default=1)
    if most < 2:
        return ""
    return f" Means over {most} seeds, intervals over documents and seeds."

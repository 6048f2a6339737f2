"""Progress in any terminal: counts are whole, whatever else has to give way."""

import io

import pytest

from lorascope.printing import Console
from lorascope.progress import Reporter

TITLE = "training dictionaries on the deltas of null adapters"


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_counts_are_whole_at_any_width(width):
    shown = io.StringIO()
    reporter = Reporter()
    reporter.console = Console(
        file=shown, width=width, force_terminal=True, color_system=None, highlight=False
    )
    with reporter.stages({TITLE: 128}) as advance:
        advance(TITLE, 102)
        with reporter.bar("reading", 123456, "tokens") as read:
            read(103000)
            reporter._shown.refresh()
    lines = shown.getvalue()
    assert "102/128" in lines
    assert "103000/123456" in lines
    assert TITLE[:10] in lines

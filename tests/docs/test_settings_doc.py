"""docs/settings.md says what the code says."""

import re
from pathlib import Path

import pytest

import write_settings_doc as script
from lorascope.config import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "settings.md"


def test_the_page_is_up_to_date():
    assert script.PAGE == PAGE
    assert PAGE.read_text(encoding="utf-8") == script.page(), (
        "run python scripts/write_settings_doc.py"
    )


def test_every_setting_of_a_study_is_on_it():
    text = PAGE.read_text(encoding="utf-8")
    for root in script.COMMANDS.values():
        for kind in script._with_sections(root):
            part = text.partition(f"### {kind.__name__}\n")[2].partition("\n### ")[0]
            assert re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) == list(kind.model_fields)


def test_links_lead_to_sections():
    text = PAGE.read_text(encoding="utf-8")
    headings = {h.lower() for h in re.findall(r"^### (\w+)$", text, re.MULTILINE)}
    links = set(re.findall(r"\]\(#(\w+)\)", text))
    assert len(links) > 20
    assert links <= headings


class Example(Settings):
    """Two fields.

    Attributes:
        first, second: said
            together.
    """

    first: int = 1
    second: tuple[str, ...] | None = None


class Undescribed(Settings):
    """One field."""

    thing: int = 1


def test_a_class_as_a_table():
    assert script.section(Example) == (
        "### Example\n\nTwo fields.\n\n"
        "| setting | value | default | what it is |\n|---|---|---|---|\n"
        "| `first` | whole number | `1` | said together. |\n"
        "| `second` | list of text | – | said together. |\n"
    )


def test_a_setting_that_nothing_describes_is_refused():
    with pytest.raises(ValueError, match=r"Undescribed\.thing"):
        script.section(Undescribed)

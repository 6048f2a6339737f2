"""docs/settings.md says what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest

from lorascope.config import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "settings.md"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "write_settings_doc", ROOT / "scripts" / "write_settings_doc.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(script):
    assert script.PAGE == PAGE
    assert PAGE.read_text(encoding="utf-8") == script.page(), (
        "run python scripts/write_settings_doc.py"
    )


def test_every_setting_of_a_study_is_on_it(script):
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


def test_a_class_as_a_table(script):
    assert script.section(Example) == (
        "### Example\n\nTwo fields.\n\n"
        "| setting | value | default | what it is |\n|---|---|---|---|\n"
        "| `first` | whole number | `1` | said together. |\n"
        "| `second` | list of text | – | said together. |\n"
    )


def test_a_setting_that_nothing_describes_is_refused(script):
    with pytest.raises(ValueError, match=r"Undescribed\.thing"):
        script.section(Undescribed)

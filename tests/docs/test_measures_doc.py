"""docs/measures.md says what the code says."""

import re
from pathlib import Path

import pytest

import write_measures_doc as script
from lorascope.measures.definitions import DEFINITIONS
from lorascope.results import null_names

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "measures.md"


def test_the_page_is_up_to_date():
    assert script.PAGE == PAGE
    assert PAGE.read_text(encoding="utf-8") == script.page(), (
        "run python scripts/write_measures_doc.py"
    )


def test_every_measure_has_its_section():
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^- Key: `(.+)`$", text, re.MULTILINE) == list(DEFINITIONS)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [d.title for d in DEFINITIONS.values()]
    assert len(set(re.findall(r"^## (.+)$", text, re.MULTILINE))) == len(DEFINITIONS)


@pytest.mark.parametrize("key", DEFINITIONS)
def test_the_file_that_computes_it_exists_and_names_it(key):
    path = ROOT / "src" / "lorascope" / DEFINITIONS[key].file
    text = path.read_text(encoding="utf-8")
    first, _, rest = key.partition(".")
    names = {
        f'"{key}"',
        f'f"{first}.{{pair}}"',
        f'"{rest}"',
        f'f"{key.rpartition(".")[0]}.{{side}}"',
    }
    assert any(name in text for name in names)


def test_links_lead_somewhere():
    text = PAGE.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)]+)\)", text)
    assert len(targets) == len(DEFINITIONS)
    assert all((PAGE.parent / target).is_file() for target in targets)


NULLS = {
    value for name, value in vars(null_names).items() if name.isupper() and isinstance(value, str)
} | {name for one in DEFINITIONS.values() for name in one.rivals}


@pytest.mark.parametrize("key", [key for key, one in DEFINITIONS.items() if one.rivals])
def test_a_definition_names_the_headline_null_first(key):
    """Of the names a text holds, the first (of several there, the longest) is a rival's."""
    found = DEFINITIONS[key]
    said = found.chance
    first = min((said.find(name), -len(name), name) for name in NULLS if name in said)
    assert first[2] in found.rivals, said[:100]

"""Links of the pages outside docs/, which the site does not build, lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "findings/README.md"),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """What headings of a page are called in addresses, by the rule of code hosts."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    page = ROOT / name
    for link in LINK.findall(page.read_text("utf-8")):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_the_readme_shows_three_small_pictures():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert len(pictures) == 3
    kept = [ROOT / name for name in pictures] + list((ROOT / "docs" / "gallery").glob("*.png"))
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in kept)
    assert sum(path.stat().st_size for path in set(kept)) < 6_000_000


def test_the_gallery_says_what_its_script_says():
    from make_gallery import ENTRIES, GALLERY, index

    assert (GALLERY / "index.md").read_text("utf-8") == index()
    for entry in ENTRIES:
        assert (GALLERY / f"{entry.key}.png").is_file(), f"run make gallery: {entry.key}"

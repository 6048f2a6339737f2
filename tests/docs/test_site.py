"""The documentation as a site: built strictly, whole, and read without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import lorascope

ROOT = Path(__file__).resolve().parents[2]
# Tags that make a browser fetch something by itself.
FETCHING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
LINKS_OF_THE_HEAD = {"canonical", "alternate", "prev", "next"}


class Page(HTMLParser):
    """Addresses that a page links to and fetches, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.links, self.fetched, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        address = given.get(FETCHING.get(tag, ""))
        if address and given.get("rel") not in LINKS_OF_THE_HEAD:
            self.fetched.append(address)


def build(folder, config=ROOT / "mkdocs.yml"):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site):
    # Reports of the gallery are tested where they are made.
    found = [p for p in site.rglob("*.html") if "pages" not in p.relative_to(site).parts]
    return {path: Page(path.read_text("utf-8")) for path in found}


def test_every_link_leads_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + page.fetched:
            address, anchor = urldefrag(unquote(link))
            if address.startswith(("http:", "https:", "mailto:", "data:", "javascript:")):
                continue
            target = path if not address else (path.parent / address).resolve()
            if path.name == "404.html":  # served at any address, its links start at the root
                target = site / address.lstrip("/")
            if target.is_dir():
                target /= "index.html"
            missing = anchor and target in pages and anchor not in pages[target].anchors
            if missing or not target.is_file():
                broken.append(f"{path.relative_to(site)}: {link}")
    assert len(pages) > 30
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(pages):
    for path, page in pages.items():
        away = [a for a in page.fetched if a.startswith(("http:", "https:", "//"))]
        assert away == [], path


def test_the_search_is_in_the_site(site):
    text = (site / "search" / "search_index.js").read_text("utf-8")
    index = json.loads(text.removeprefix("var __index = "))
    words = " ".join(entry["text"] for entry in index["docs"])
    for word in ("null adapter", "dictionaries.fitting.epochs", "SAEBench", "lorascope slurm"):
        assert word in words, word


def test_every_public_name_has_its_section(site, pages):
    anchors = pages[site / "reference" / "python.html"].anchors
    for name in lorascope.__all__:
        assert name == "__version__" or f"lorascope.{name}" in anchors, name


def test_a_broken_link_stops_the_build(tmp_path):
    """The same settings over one page whose link leads nowhere, within docs/ and out of it."""
    for number, link in enumerate(("missing.md", "index.md#nowhere")):
        folder = tmp_path / str(number)
        (folder / "docs").mkdir(parents=True)
        (folder / "docs" / "index.md").write_text(f"# Page\n\n[a link]({link})\n")
        config = folder / "mkdocs.yml"
        settings = (ROOT / "mkdocs.yml").read_text("utf-8")
        head = settings.partition("\nnav:")[0]
        lines = [
            line
            for line in head.splitlines()
            if not line.startswith(("hooks:", "watch:", "not_in_nav", "exclude_docs", "  /gallery"))
        ]
        config.write_text("\n".join(lines).replace("polyfills: [assets", "polyfills: [x/assets"))
        done = build(folder / "site", config)
        assert done.returncode != 0
        assert link.partition("#")[2] in done.stderr or link in done.stderr

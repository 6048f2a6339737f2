"""What mkdocs does with the pages of docs/ beyond its own: links into the repository, the API page.

- A link that leaves docs/, `../src/lorascope/config.py`, leads to the file in the repository. One
  that leads to no file stops the build.
- A link to a page of the gallery that `make gallery` has not built becomes plain text; a line that
  is nothing but such a link goes.
- `reference/python.md` gets a section for every public name.
- Tables that are too wide for a telephone become a block a row there (`docs/assets/reading.css`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

import lorascope

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
API, GALLERY = "reference/python.md", "gallery/index.md"
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_ROW, _HEADING = re.compile(r"<tr>.*?</tr>", re.DOTALL), re.compile(r"<th[^>]*>(.*?)</th>")
# Columns from which on a table of sentences is too wide for a telephone, and what is a sentence.
_MANY, _SENTENCE = 3, 40
# Headings of the API page: the modules whose names stand below each, in this order.
GROUPS = {
    "Studies": ("notebook", "study_run"),
    "Models and adapters": ("models.", "latent_adapters.", "activations.", "fits.", "checking."),
    "Reading": ("reading.",),
    "Dictionaries": ("dictionaries.", "training.", "publishing."),
    "Numbers": ("results", "measures."),
    "Errors and the rest": ("",),
}


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """The page as it is built."""
    place = DOCS / page.file.src_uri
    if page.file.src_uri == API:
        markdown += "\n" + api()
    if page.file.src_uri == GALLERY:
        markdown = _without_unbuilt(markdown, place)
    return into_repository(markdown, place, config["repo_url"])


def on_page_content(html: str, **_: Any) -> str:
    """The page's HTML: tables of several columns of sentences are marked for narrow screens."""
    return _TABLE.sub(_stacked, html)


def into_repository(markdown: str, place: Path, address: str | None) -> str:
    """Links that leave docs/ as links to files of the repository; words where it has no address.

    Raises:
        PluginError: there is no such file.
    """

    def rewritten(found: re.Match[str]) -> str:
        words, target = found[1], found[2]
        if re.match(r"[a-z]+:|#|/", target):
            return found[0]
        path, _, anchor = target.partition("#")
        file = (place.parent / path).resolve()
        if file.is_relative_to(DOCS):
            return found[0]
        if not file.is_relative_to(ROOT) or not file.exists():
            raise PluginError(f"{place.relative_to(ROOT)}: {target} leads to no file")
        if not address:
            return words
        kind = "tree" if file.is_dir() else "blob"
        whole = f"{address}/{kind}/main/{file.relative_to(ROOT).as_posix()}"
        return f"[{words}]({whole}{'#' + anchor if anchor else ''})"

    return _LINK.sub(rewritten, markdown)


def api() -> str:
    """A heading for each group of public names, a section for each name."""
    homes = dict(lorascope._HOME)
    parts = []
    for group, modules in GROUPS.items():
        names = [name for name, home in homes.items() if home.startswith(modules)]
        if names:
            parts += [f"## {group}\n", *(f"::: lorascope.{name}\n" for name in sorted(names))]
        homes = {name: home for name, home in homes.items() if name not in names}
    return "\n".join(parts)


def _stacked(table: re.Match[str]) -> str:
    """The table, each cell with the heading of its column, if it is one of sentences."""
    columns = [_words(heading) for heading in _HEADING.findall(table[0])]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table[0], re.DOTALL)
    if len(columns) < _MANY or max(map(len, map(_words, cells)), default=0) < _SENTENCE:
        return table[0]

    def named(row: re.Match[str]) -> str:
        column = iter(columns)
        return re.sub(r"<td", lambda _: f'<td data-column="{next(column)}"', row[0])

    return f'<div class="stacked">{_ROW.sub(named, table[0])}</div>'


def _words(html: str) -> str:
    """Text of a cell, safe within quotes."""
    return re.sub(r"<[^>]*>", "", html).replace('"', "&quot;").strip()


def _without_unbuilt(markdown: str, place: Path) -> str:
    def kept(found: re.Match[str]) -> str:
        built = not found[2].startswith("pages/") or (place.parent / found[2]).is_file()
        return found[0] if built else found[1]

    lines = []
    for line in markdown.splitlines(keepends=True):
        whole = _LINK.fullmatch(line.strip())
        # A picture says something without its link too.
        if whole is None or whole[1].startswith("!") or kept(whole) == whole[0]:
            lines.append(_LINK.sub(kept, line))
    return "".join(lines)

"""The feature browser in a real browser, with names, tokens and labels that try to be markup.

The section stands in a page of its own.
"""

import json
import shutil
from importlib.resources import files
from urllib.parse import quote

import pytest
from browsed_latents import HOSTILE, LATENTS, columns, head, latents, records, set_value
from chromium import CHROMIUM
from jinja2 import Environment, PackageLoader, StrictUndefined

from lorascope.report.latents import BLOCK, read_latents, write_latents
from lorascope.report.markup import content_policy
from lorascope.studies.audit.sections import features
from lorascope.studies.audit.sections.labels import read_labels

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

SHELL = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta http-equiv="Content-Security-Policy" content="{policy}">'
    '<link rel="icon" href="data:,"><title>browser</title><style>{style}</style></head>'
    "<body><main>{body}</main><script>{script}</script></body></html>"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page with two dictionaries of 700 latents each, most of them in files beside it."""
    run = tmp_path_factory.mktemp("browsed")
    for number, adapter in enumerate((HOSTILE, "plain")):
        other = ("plain", HOSTILE)[number]
        folder = run / "features" / f"layers.1-{number}"
        described = head("layers.1", adapter, other) | {"rank": number}
        write_latents(folder, described, columns(LATENTS), records(LATENTS))
    (run / "labels.json").write_text(json.dumps({"layers.1": {"0": HOSTILE, "1": "rivers"}}))
    features.write_features(read_latents(run), read_labels(run), run / "report" / "features")
    return write_page(run)


def write_page(run):
    section = features.feature_section(read_latents(run), read_labels(run))
    environment = Environment(
        loader=PackageLoader("lorascope.report"), autoescape=True, undefined=StrictUndefined
    )
    body = environment.get_template("features.html.j2").render(features=section)
    style = (files("lorascope.report") / "templates" / "style.css").read_text() + section.style
    page = run / "report" / "index.html"
    parts = {"policy": content_policy(section.script), "script": section.script}
    page.write_text(SHELL.format(style=style, body=body, **parts), encoding="utf-8")
    return page.as_uri()


@pytest.fixture
def opened(chromium, address):
    """The page, freshly opened; whatever a test does, no error and nothing hostile ran."""
    chromium.open(address)
    chromium.until("document.querySelectorAll('#features-rows tr').length === 50")
    yield chromium
    assert chromium.errors == []
    assert chromium.js("window.hacked") is None
    assert chromium.js("document.querySelectorAll('img, #features-browser script').length") == 0


def linked(*parts):
    """The address of a latent."""
    return "/".join(quote(str(part), safe="!'()*") for part in parts)


def count(page):
    return page.js("document.getElementById('features-count').textContent")


def test_the_first_latents_are_those_that_write_most(opened):
    assert latents(opened) == [2 * i for i in range(50)]
    assert count(opened) == "700 latents shown"


def test_sorting_by_a_head_goes_both_ways_and_puts_what_was_not_taken_last(opened):
    cosines = columns(LATENTS)["cosine"]
    order = sorted(range(LATENTS), key=lambda i: -cosines[i])
    opened.js("document.querySelector('[data-sort=cosine]').click()")
    assert latents(opened) == [2 * i for i in order[:50]]
    assert opened.js("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == (
        "descending"
    )
    opened.js("document.querySelector('[data-sort=cosine]').click()")
    assert latents(opened) == [2 * i for i in order[::-1][:50]]
    opened.js("document.querySelector('[data-sort=loss]').click()")
    assert latents(opened)[:6] == [8, 6, 4, 2, 0, 10]
    opened.js("document.querySelector('[data-sort=loss]').click()")
    assert latents(opened)[:6] == [0, 2, 4, 6, 8, 10]


def test_search_looks_at_tokens_and_labels(opened):
    set_value(opened, "search", "WORD69", "input")
    assert latents(opened) == [138, *(2 * i for i in range(690, 700))]
    set_value(opened, "search", "word69 tok693", "input")
    assert latents(opened) == [1386]
    set_value(opened, "search", "rivers", "input")
    assert latents(opened) == [2 * i for i in range(1, LATENTS, 50)]
    set_value(opened, "search", "nothing has this", "input")
    assert latents(opened) == []
    assert count(opened).startswith("0 latents")


def test_filters_join(opened):
    set_value(opened, "verdict", "below", "change")
    assert latents(opened)[:3] == [4, 10, 16]
    set_value(opened, "density", "0.1", "change")
    kept = [2 * i for i in range(LATENTS) if i % 3 == 2 and i % 10 >= 2]
    assert latents(opened) == kept[:50]
    assert count(opened) == f"{len(kept)} latents shown"


def test_pages_turn(opened):
    opened.js("document.getElementById('features-next').click()")
    assert latents(opened)[0] == 100
    assert opened.js("document.getElementById('features-page').textContent") == "page 2 of 14"


def test_a_latent_opens_by_keyboard_and_escape_returns(opened):
    opened.js("document.querySelector('[data-latent]').focus()")
    opened.press("ArrowDown")
    assert opened.js("document.activeElement.dataset.latent") == "2"
    opened.press("Enter")
    opened.until("document.querySelectorAll('#features-detail .feature-passage').length === 1")
    text = opened.js("document.getElementById('features-detail').textContent")
    assert text.startswith("Latent 2 of ")
    assert HOSTILE in text
    assert "a⟨U+202E⟩b⟨0x00⟩⟨U+2028⟩" in text
    assert "Max cosine 0.0100 with base latent 1: ▲" not in text
    assert "[1.00 %, 2.00 %] of tokens (0.400 % of norm-matched random vectors)" in text
    assert "= within, chance 0.200 [0.100, 0.300]" in text
    assert opened.js("location.hash") == f"#{linked(HOSTILE, 'layers.1', 2)}"
    opened.press("Escape")
    assert opened.js("document.getElementById('features-detail').hidden")
    assert opened.js("document.activeElement.dataset.latent") == "2"


def test_a_latent_shows_its_shades_and_links_to_neuronpedia(opened):
    opened.js("document.querySelector('[data-latent=\"0\"]').click()")
    opened.until("document.querySelector('.feature-passage')")
    shades = opened.js(
        "[...document.querySelectorAll('.feature-passage span')]"
        ".map(s => s.style.getPropertyValue('--shade'))"
    )
    assert shades == ["", "1", str(20 / 99), ""]
    links = opened.js("[...document.querySelectorAll('#features-detail a')].map(a => a.href)")
    host = "https://www.neuronpedia.org/gemma-2-9b/20-gemmascope-res-16k/"
    assert links == [f"{host}0", f"{host}7", f"{host}2"]


def test_records_beyond_the_page_are_loaded_from_beside_it(opened):
    assert features.PAGE_DETAILS // 2 == 2 * BLOCK
    set_value(opened, "search", "tok650", "input")
    opened.js("document.querySelector('[data-latent]').click()")
    opened.until("document.querySelector('.feature-passage')")
    assert "strongest 650" in opened.js("document.querySelector('.feature-passage').textContent")
    assert opened.js("document.querySelector('script[src]').src").endswith("features/0-005.js")


def test_a_neighbour_opens_in_its_own_dictionary(opened):
    opened.js("document.querySelector('[data-latent=\"2\"]').click()")
    opened.until("document.querySelector('#features-detail .feature-list button')")
    opened.js("document.querySelector('#features-detail .feature-list button').click()")
    opened.until("document.getElementById('features-dictionary').value === '1'")
    opened.until(
        "document.querySelector('#features-detail h3')?.textContent === "
        "'Latent 6 of plain · layers.1 · seed 0'"
    )


def test_an_address_with_a_latent_opens_it(chromium, address):
    chromium.open(f"{address}#latent-1-1398")
    chromium.until("document.querySelector('#features-detail h3')")
    heading = chromium.js("document.querySelector('#features-detail h3').textContent")
    assert heading == "Latent 1398 of plain · layers.1 · seed 0"
    assert chromium.js("document.querySelector('[aria-current] [data-latent]').dataset.latent") == (
        "1398"
    )
    assert chromium.errors == []


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (linked("plain", "layers.1", 1398), "Latent 1398 of plain · layers.1 · seed 0"),
        (linked("plain", "layers.1", "seed0", 6), "Latent 6 of plain · layers.1 · seed 0"),
        (linked(HOSTILE, "layers.1", 4), "Latent 4 of </script>"),
    ],
)
def test_the_address_of_a_latent_can_be_written_by_hand(chromium, address, asked, shown):
    chromium.open(f"{address}#{asked}")
    chromium.until("document.querySelector('#features-detail h3')")
    heading = chromium.js("document.querySelector('#features-detail h3').textContent")
    assert heading.startswith(shown.partition("</")[0])
    assert chromium.errors == []


@pytest.mark.parametrize("asked", ["plain/layers.9/4", "plain/layers.1/seed7/4", "%E0/layers.1/4"])
def test_an_address_of_nothing_opens_the_table(chromium, address, asked):
    chromium.open(f"{address}#{asked}")
    chromium.until("document.querySelectorAll('#features-rows tr').length === 50")
    assert chromium.js("document.getElementById('features-detail').hidden")
    assert chromium.errors == []


def test_following_such_an_address_on_the_page_opens_the_latent(opened):
    opened.js("location.hash = 'plain/layers.1/8'")
    opened.until(
        "document.querySelector('#features-detail h3')?.textContent.startsWith('Latent 8')"
    )
    assert opened.js("document.getElementById('features-dictionary').value") == "1"


def test_a_slash_goes_to_the_search_and_enter_opens_what_is_found(opened):
    opened.js("document.body.focus()")
    opened.press("/")
    assert opened.js("document.activeElement.id") == "features-search"
    set_value(opened, "search", "word69 tok693", "input")
    opened.press("/")  # typed into the search, it stays there
    assert opened.js("document.activeElement.id") == "features-search"
    opened.press("ArrowDown")
    assert opened.js("document.activeElement.dataset.latent") == "1386"
    opened.js("document.getElementById('features-search').focus()")
    opened.press("Enter")
    opened.until("document.querySelector('#features-detail h3')")
    assert opened.js("location.hash").endswith("/1386")


@pytest.mark.parametrize(("theme", "ink"), [("light", "26, 34, 44"), ("dark", "228, 232, 237")])
def test_the_theme_follows_the_reader(opened, theme, ink):
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    opened.call("Emulation.setEmulatedMedia", features=scheme)
    colour = "getComputedStyle(document.querySelector('.feature-token')).color"
    assert opened.js(colour) == f"rgb({ink})"


def test_a_phone_needs_no_sideways_scrolling_of_the_page(opened):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.call("Emulation.setDeviceMetricsOverride", **size)
    try:
        opened.js("document.querySelector('[data-latent]').click()")
        opened.until("document.querySelector('.feature-passage')")
        assert opened.js("document.documentElement.scrollWidth") <= 390
    finally:
        opened.call("Emulation.clearDeviceMetricsOverride")


def test_a_page_without_its_folder_says_so(chromium, address, tmp_path):
    page = tmp_path / "alone.html"
    source = address.removeprefix("file://")
    shutil.copy(source, page)
    chromium.open(page.as_uri())
    set_value(chromium, "search", "tok650", "input")
    chromium.js("document.querySelector('[data-latent]').click()")
    chromium.until("document.querySelector('#features-detail p')")
    chromium.until(
        "document.getElementById('features-detail').textContent.includes('not beside this page')"
    )

"""The feature browser in a real browser, with names, tokens and labels that try to be markup.

Chromium is driven through its DevTools protocol over a pipe; nothing else is needed. The section
stands in a page with a stricter content-security policy than the report's: no eval.
"""

import fcntl
import json
import os
import shutil
import subprocess
import time
from importlib.resources import files

import pytest
from jinja2 import Environment, PackageLoader, StrictUndefined

from lorascope.report import features
from lorascope.report.latents import BLOCK, write_latents

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

HOSTILE = "</script><img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
SPOOFED = "a\u202eb\u0000\u2028"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self' file: 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
SHELL = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta http-equiv="Content-Security-Policy" content="{policy}">'
    '<link rel="icon" href="data:,"><title>browser</title><style>{style}</style></head>'
    "<body><main>{body}</main></body></html>"
)
LATENTS = 700


class Chromium:
    """A headless Chromium with one page open, its exceptions and console errors collected."""

    def __init__(self, profile):
        ours, theirs = [], []
        for of_ours, of_theirs in ((1, 0), (0, 1)):
            pair = os.pipe()
            # Away from 3 and 4, which Chromium reads and writes.
            moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in pair]
            for end in pair:
                os.close(end)
            ours.append(moved[of_ours])
            theirs.append(moved[of_theirs])
        options = (
            "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync "
            "--disable-background-networking --disable-component-update --remote-debugging-pipe"
        )
        # Single digits are all that a shell redirects; the shell becomes Chromium.
        line = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
        profile_option = f"--user-data-dir={profile}"
        self._process = subprocess.Popen(
            ["bash", "-c", line, CHROMIUM, *options.split(), profile_option, "about:blank"],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in theirs:
            os.close(end)
        self._to, self._from = ours
        self._buffer, self._count, self._session = b"", 0, None
        self.errors = []
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._count:
                assert "error" not in reply, reply["error"]
                return reply["result"]
            self._notice(reply)

    def _read(self):
        while b"\0" not in self._buffer:
            part = os.read(self._from, 1 << 20)
            assert part, "Chromium has gone"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _notice(self, event):
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"])
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"])
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.errors.append(parameters)

    def open(self, address):
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")
        self.errors.clear()

    def js(self, expression):
        """The value of an expression, promises awaited."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression, seconds=15):
        end = time.monotonic() + seconds
        while not self.js(f"!!({expression})"):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.02)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            typed = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            code = {"Enter": 13}.get(key, 0)
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed
            )

    def close(self):
        self._process.terminate()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)


def records(count):
    """The details of `count` latents, hostile where text stands."""
    example = {
        "band": "strongest",
        "value": 2.5,
        "at": 1,
        "tokens": ["x", HOSTILE, SPOOFED, "\n"],
        "shades": [0, 99, 20, 0],
    }
    return [
        {
            "up": [[HOSTILE, 3.0], [SPOOFED, 2.0]],
            "down": [["no", -3.0]],
            "density": [0.01, 0.02],
            "density_chance": 0.004,
            "mean": [1.5, 2.5],
            "max": 2.5,
            "histogram": [8, 4, 2] + [0] * 12 + [1],
            "kinds": [0.25, 0.75],
            "examples": [{**example, "value": float(index)}],
            "near": [[6, 0.9]],
            "built": [[7, 0.8], [2, 0.1]],
            "explained": 0.7,
        }
        for index in range(count)
    ]


def columns(count):
    """The table of `count` latents: latent 2·i writes count − i, and so on."""
    third = ["above chance", "at chance", "below chance"]
    return {
        "latent": [2 * i for i in range(count)],
        "density": [(i % 10) / 20 + 0.0005 for i in range(count)],
        "mean": [float(i) for i in range(count)],
        "strength": [1.0] * count,
        "written": [float(count - i) for i in range(count)],
        "loss": [0.01 * i if i < 5 else None for i in range(count)],
        "kl": [0.1 if i < 5 else None for i in range(count)],
        "kl_other": [0.05 if i < 5 else None for i in range(count)],
        "promotes": [[HOSTILE, f"tok{i}"] for i in range(count)],
        "fires": [[f"word{i}", SPOOFED] for i in range(count)],
        "cosine": [((11 * i) % count) / count for i in range(count)],
        "base": [i % 50 for i in range(count)],
        "verdict": [third[i % 3] for i in range(count)],
    }


def head(site, adapter, other):
    chance = {"null": "covariance-matched", "level": 0.2, "low": 0.1, "high": 0.3}
    return {
        "site": site,
        "adapter": adapter,
        "rank": 4,
        "seed": 0,
        "n_latents": 1500,
        "rows": 1000,
        "documents": 10,
        "base_latents": 50,
        "neuronpedia": "gemma-2-9b/20-gemmascope-res-16k",
        "chance": chance,
        "kinds": ["coding", HOSTILE],
        "kind_shares": [0.5, 0.5],
        "near": [{"site": site, "adapter": other, "chance": chance}],
        "built_chance": chance,
    }


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
    features.write_features(run, run / "report" / "features")
    return write_page(run)


def write_page(run):
    section = features.feature_section(run)
    environment = Environment(
        loader=PackageLoader("lorascope.report"), autoescape=True, undefined=StrictUndefined
    )
    body = environment.get_template("features.html.j2").render(features=section)
    style = (files("lorascope.report") / "templates" / "style.css").read_text() + section.style
    page = run / "report" / "index.html"
    page.write_text(SHELL.format(policy=POLICY, style=style, body=body), encoding="utf-8")
    return page.as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One Chromium for all tests."""
    found = Chromium(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def opened(chromium, address):
    """The page, freshly opened; whatever a test does, no error and nothing hostile ran."""
    chromium.open(address)
    chromium.until("document.querySelectorAll('#features-rows tr').length === 50")
    yield chromium
    assert chromium.errors == []
    assert chromium.js("window.hacked") is None
    assert chromium.js("document.querySelectorAll('img, #features-browser script').length") == 0


def latents(page):
    """Numbers of the latents in the table, from top to bottom."""
    return page.js("[...document.querySelectorAll('[data-latent]')].map(b => +b.dataset.latent)")


def set_value(page, name, value, event):
    page.js(
        f"(() => {{ const e = document.getElementById('features-{name}'); e.value = "
        f"{json.dumps(value)}; e.dispatchEvent(new Event('{event}')); }})()"
    )


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
    set_value(opened, "verdict", "below chance", "change")
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
    assert "a\\u202eb\\u0000\\u2028" in text
    assert "Max cosine 0.0100 with base latent 1: ▲" not in text
    assert "[1.00 %, 2.00 %] of tokens (0.400 % of norm-matched random vectors)" in text
    assert "= at chance, chance 0.200 [0.100, 0.300]" in text
    assert opened.js("location.hash") == "#latent-0-2"
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

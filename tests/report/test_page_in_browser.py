"""The whole page in a real browser under its own policy, with names and tokens that try to run."""

import base64
import json
from unittest.mock import patch
from urllib.parse import quote

import pytest
from browsed_latents import HOSTILE, LATENTS, columns, head, latents, records, set_value
from chromium import CHROMIUM
from planted_results import facts_for, planted_estimates, without_files

import lorascope.report
from lorascope.report.formatting import shortened
from lorascope.report.latents import write_latents
from lorascope.report.result import write_estimates
from lorascope.studies.audit import page as report_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

MEASURES = ("delta_norm", "max_cosine.mean", "angle.mean")
NAMES = {HOSTILE: None, "=r8": None}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    run = tmp_path_factory.mktemp("hostile")
    estimates = planted_estimates("found", NAMES, ("layers.1", "layers.3"), measures=MEASURES)
    write_estimates(estimates, run / "results")
    facts = facts_for(estimates) | {
        "warnings": [HOSTILE],
        "command": HOSTILE,
        "model": {"id": HOSTILE},
        "samples": [{"prompt": HOSTILE, "base": HOSTILE, "adapted": {HOSTILE: HOSTILE}}],
    }
    (run / "results" / "facts.json").write_text(json.dumps(facts))
    for rank, adapter in enumerate(NAMES):
        other = list(NAMES)[1 - rank]
        described = head("layers.1", adapter, other) | {"rank": rank}
        folder = run / "features" / f"layers.1-{rank}"
        write_latents(folder, described, columns(LATENTS), records(LATENTS))
    (run / "labels.json").write_text(json.dumps({"layers.1": {"0": HOSTILE}}))
    with patch.object(report_page, "written_figures", without_files):
        return lorascope.report.build(run).as_uri()


@pytest.fixture
def opened(chromium, address):
    """The page, freshly opened; whatever a test does, no error and nothing hostile ran."""
    chromium.open(address)
    chromium.js("localStorage.clear()")
    yield chromium
    assert chromium.errors == []
    assert chromium.js("window.hacked") is None
    assert chromium.js("document.querySelectorAll('img').length") == 0


def text(page, selector):
    return page.js(f"document.querySelector({json.dumps(selector)}).textContent")


def drawn(page, selector="#size .chart"):
    """Wait until a figure is there; the others may still wait for their turn."""
    page.js(f"document.querySelector('{selector}').scrollIntoView()")
    page.until(f"document.querySelector('{selector} svg')", 60)


def test_every_figure_is_drawn_and_hostile_names_are_text(opened):
    every = "[...document.querySelectorAll('.chart')]"
    assert opened.js(f"{every}.length") > 4
    opened.until(f"{every}.every((each) => each.querySelector('svg'))", 120)
    assert HOSTILE in text(opened, ".scope")
    assert shortened(HOSTILE) in text(opened, "h1")
    # Names are cut to fit their axis; what is left of one is text.
    assert "</script><img" in text(opened, "#size .chart svg")


@pytest.mark.parametrize("width", [390, 1280])
def test_chance_stands_in_view_beside_every_verdict(opened, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.call("Emulation.setDeviceMetricsOverride", **metrics)
    try:
        ends = opened.js(
            "[...document.querySelectorAll('.matrix tbody td')]"
            ".map((cell) => cell.getBoundingClientRect().right)"
        )
        assert ends
        assert max(ends) <= width
        page = opened.js("document.documentElement.scrollWidth")
        assert page <= width
    finally:
        opened.call("Emulation.clearDeviceMetricsOverride")


def test_nothing_else_runs_under_the_page_s_policy(chromium, address):
    chromium.open(address)
    chromium.js(
        "const s = document.createElement('div');"
        "s.innerHTML = '<img src=x onerror=\"window.ran=1\">';"
        "document.body.append(s);"
    )
    chromium.js(
        "const a = document.createElement('a'); a.href = 'javascript:window.ran=1';"
        "document.body.append(a); a.click();"
    )
    found = chromium.call(
        "Runtime.evaluate",
        expression="eval('window.ran=1')",
        allowUnsafeEvalBlockedByCSP=False,
    )
    assert "EvalError" in found["exceptionDetails"]["exception"]["description"]
    asked = "fetch('https://localhost/').then(() => 'went out', () => 'refused')"
    assert chromium.js(asked) == "refused"
    assert chromium.js("window.ran") is None
    # Each attempt was reported as against the policy.
    assert len(chromium.errors) >= 3


def test_the_theme_turns_from_the_system_s_to_light_to_dark(opened):
    def background():
        return opened.js("getComputedStyle(document.body).backgroundColor")

    def emulate(scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.call("Emulation.setEmulatedMedia", media="", features=features)

    light, dark = "rgb(247, 248, 249)", "rgb(18, 22, 27)"
    drawn(opened)
    label = "getComputedStyle(document.querySelector('#size .role-axis-label text')).fill"
    emulate("dark")
    assert background() == dark
    on_dark = opened.js(label)
    opened.js("document.getElementById('theme').click()")
    assert background() == light
    assert opened.js(label) != on_dark
    opened.js("document.getElementById('theme').click()")
    emulate("light")
    assert background() == dark
    # Paper stays white.
    opened.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert opened.js("getComputedStyle(document.documentElement).getPropertyValue('--ink')") == (
        "#1a222c"
    )
    opened.call("Emulation.setEmulatedMedia", media="", features=[])
    opened.js("document.getElementById('theme').click()")
    assert text(opened, "#theme").endswith("auto")


def saved(page, kind):
    """What a click on a figure's button saves: its name and its content."""
    page.js(
        "window.saved = new Promise((done) => {"
        "HTMLAnchorElement.prototype.click = function () {"
        "done([this.download, this.href]); }; }); null"
    )
    page.js(f"document.querySelector('#size [data-save={kind}]').click()")
    return page.js("window.saved")


def test_a_figure_is_saved_with_one_click(opened):
    drawn(opened)
    opened.js(
        "window.blobs = []; const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { window.blobs.push(blob); return make(blob); };"
    )
    name, _ = saved(opened, "csv")
    lines = opened.js("window.blobs.pop().text()").splitlines()
    assert name == "delta_norm.csv"
    assert {"adapter", "site", "value", "low", "high", "chance", "n"} <= set(lines[0].split(","))
    assert len(lines) == 5
    # A spreadsheet must not take a name for a formula.
    assert any(",'=r8," in line for line in lines)
    name, _ = saved(opened, "svg")
    assert name == "delta_norm.svg"
    svg = opened.js("window.blobs.pop().text()")
    assert svg.startswith("<svg")
    assert "<script" not in svg
    name, address = saved(opened, "png")
    assert name == "delta_norm.png"
    assert base64.b64decode(address.split(",")[1]).startswith(b"\x89PNG")


def test_hovering_shows_value_chance_interval_and_n(opened):
    drawn(opened)
    # A pointer at rest is not told of what scrolls under it: it moves until it is seen.
    for step in range(200):
        x, y = opened.js(
            "(() => { const mark = document.querySelector('#size .mark-rect path');"
            "mark.scrollIntoView({ block: 'center', behavior: 'instant' });"
            "const r = mark.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + step % 3, y=y)
        if opened.js("!!document.querySelector('#vg-tooltip-element.visible')"):
            break
    shown = text(opened, "#vg-tooltip-element")
    for what in ("value", "95 % interval", "chance", "95 % of chance", "verdict", "n"):
        assert what in shown


def test_the_browser_of_features_sorts_filters_and_opens(opened):
    opened.until("document.querySelectorAll('#features-rows tr').length === 50")
    opened.js("document.querySelector('[data-sort=cosine]').click()")
    order = sorted(range(LATENTS), key=lambda i: -columns(LATENTS)["cosine"][i])
    assert latents(opened) == [2 * i for i in order[:50]]
    set_value(opened, "verdict", "below", "change")
    assert all(latent % 3 == 1 for latent in latents(opened))
    set_value(opened, "search", "tok650", "input")
    opened.js("document.querySelector('#features-rows [data-latent]').click()")
    opened.until("document.querySelector('.feature-passage')")
    assert "strongest 650" in text(opened, ".feature-passage")


def test_two_conditions_stand_side_by_side(opened):
    assert text(opened, "#sides-left option").startswith(shortened(HOSTILE))
    numbers = opened.js(
        "[...document.querySelectorAll('#sides-numbers tbody tr')].map(r => r.innerText)"
    )
    assert any(row.startswith("Delta norm") for row in numbers)
    # The first latents of both, each with its nearest on the other side.
    rows = opened.js(
        "[...document.querySelectorAll('#sides-pairs tbody tr')].map(r => "
        "[...r.children].map(c => c.textContent))"
    )
    assert len(rows) == 20
    assert rows[0][:2] == ["left", "0"]
    assert rows[0][3:5] == ["▲ 0.900", "6"]
    opened.js("document.querySelector('#sides-pairs td:nth-child(5) button').click()")
    opened.until(f"location.hash === '#{quote('=r8')}/layers.1/6'")
    opened.js(
        "(() => { const s = document.getElementById('sides-right'); s.value = '3';"
        "s.dispatchEvent(new Event('change')); })()"
    )
    assert opened.js("document.getElementById('sides-latents').hidden")


@pytest.mark.parametrize(
    ("width", "media"), [(390, "screen"), (1280, "screen"), (794, "print")], ids=str
)
def test_no_page_is_wider_than_its_window_or_paper(opened, address, width, media):
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.call("Emulation.setDeviceMetricsOverride", **size)
    opened.call("Emulation.setEmulatedMedia", media=media, features=[])
    try:
        opened.open(address)
        drawn(opened)
        opened.js("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert opened.js("document.documentElement.scrollWidth") <= width
    finally:
        opened.call("Emulation.clearDeviceMetricsOverride")
        opened.call("Emulation.setEmulatedMedia", media="", features=[])


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_the_theme_button_covers_no_section_s_link(opened, address, width):
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.call("Emulation.setDeviceMetricsOverride", **size)
    try:
        opened.open(address)
        # Where links do not fit they are scrolled to: the last one then stands before the button.
        opened.js("document.querySelector('nav').scrollLeft = 1e6")
        right, left, links = opened.js(
            "(() => { const box = (e) => e.getBoundingClientRect(); const b ="
            " box(document.getElementById('theme')); const all = [...document.querySelectorAll("
            "'nav a')].map(box); const row = all.filter((a) => a.bottom > b.top && a.top <"
            " b.bottom); return [Math.max(...row.map((a) => a.right)), b.left, all.length]; })()"
        )
        assert links > 4
        assert right <= left
    finally:
        opened.call("Emulation.clearDeviceMetricsOverride")


def test_a_link_to_a_latent_opens_it(opened, address):
    opened.open(f"{address}#{quote('latent-1-4')}")
    opened.until("document.querySelector('#features-detail h3')")
    assert text(opened, "#features-detail h3").startswith("Latent 4 of =r8")


def copied(page, kind, table):
    """What a table's button puts on the clipboard."""
    page.js(
        "window.written = null; Object.defineProperty(navigator, 'clipboard', { configurable: true,"
        " value: { writeText: async (text) => { window.written = text; } } });"
    )
    bar = f"document.querySelector('{table}').closest('.scroll').previousElementSibling"
    page.js(f"{bar}.querySelector('[data-copy={kind}]').click()")
    page.until("window.written !== null")
    return page.js("window.written")


def test_every_table_is_copied_as_markdown(opened):
    tables, bars = opened.js(
        "['main table', '.copies'].map((each) => document.querySelectorAll(each).length)"
    )
    assert tables == bars > 5
    text = copied(opened, "Markdown", "#size table.estimates")
    head, rule, *rows = text.strip().splitlines()
    cells = [cell.strip() for cell in head.strip("|").split("|")]
    assert cells[0] == "Number"
    assert {"Value", "Chance", "Verdict"} <= set(cells)
    assert rule.count("|") == head.count("|")
    assert "---:" in rule
    shown = opened.js("document.querySelectorAll('#size table.estimates tbody tr').length")
    assert len(rows) == shown
    # Names that try to be markup are text in the copy too.
    named = next(row for row in rows if "onerror" in row)
    assert "<img" not in named.replace("\\<", "")


def test_every_table_is_copied_as_latex(opened):
    text = copied(opened, "LaTeX", "#verdicts table")
    lines = text.strip().splitlines()
    assert lines[0].startswith("\\begin{tabular}{l")
    assert lines[-1] == "\\end{tabular}"
    assert (lines.count("\\toprule"), lines.count("\\midrule"), lines.count("\\bottomrule")) == (
        1,
        1,
        1,
    )
    columns = len(lines[0].partition("}{")[2].rstrip("}"))
    rows = [line for line in lines if line.endswith("\\\\")]
    assert all(line.replace("\\&", "").count("&") == columns - 1 for line in rows)
    assert not {"▲", "▼", "−", "·"} & set(text)
    assert "_" not in text.replace("\\_", "")


def test_where_the_clipboard_is_closed_the_button_says_so(opened):
    opened.js(
        "Object.defineProperty(navigator, 'clipboard', { configurable: true, value: undefined });"
        "document.execCommand = () => false; document.querySelector('[data-copy]').click()"
    )
    opened.until("document.querySelector('[data-copy]').textContent === 'not allowed here'")
    assert opened.js("document.querySelectorAll('body > textarea').length") == 0


def test_printed_the_page_has_its_numbers_and_no_buttons(opened, address):
    opened.open(address)
    drawn(opened)
    paper = {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
    pdf = base64.b64decode(opened.call("Page.printToPDF", **paper)["data"])
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/") > 1
    opened.call("Emulation.setEmulatedMedia", media="print", features=[])
    try:
        for hidden in ("nav", ".copies", ".controls", ".figure-files"):
            assert (
                opened.js(f"getComputedStyle(document.querySelector('{hidden}')).display") == "none"
            )
        assert (
            opened.js("getComputedStyle(document.querySelector('#verdicts table')).display")
            != "none"
        )
    finally:
        opened.call("Emulation.setEmulatedMedia", media="", features=[])

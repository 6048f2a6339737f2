"""Measure the report of a large audit made from random data, in a headless Chromium.

    python bench/report.py                   # 24 conditions of 16,384 latents; a minute or two
    python bench/report.py --latents 512     # smaller
    python bench/report.py --run runs/demo   # of a finished run instead

Printed: the size of the page and of the files beside it, seconds to build them, milliseconds to the
first paint and until the page answers, and milliseconds of a search, a sort and an opened latent in
the feature browser once its whole table is there. With --shots FOLDER screenshots of the page at
the sizes of a phone and a laptop and as printed.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))

from chromium import CHROMIUM, Chromium
from planted_results import facts_for, planted_estimates

import lorascope.report
from lorascope.report.latents import WHOLE, write_latents
from lorascope.report.result import write_estimates

RANKS = (4, 8, 16, 32)
WORDS = [f"{a}{b}" for a in ("ri", "mo", "ta", "ke", "lu", "no") for b in ("ver", "on", "ble", "")]
SIZES = {"phone": (390, 844, True), "laptop": (1280, 800, False)}


def write_run(folder: Path, latents: int, sites: int, tokens: str = "") -> Path:
    """A finished audit of four ranks at some sites, every number and every latent at random.

    Args:
        tokens: put into every token, adapter and site's name, hostile text for instance.
    """
    adapters = {f"r{rank}{tokens}": rank for rank in RANKS}
    names = [f"layers.{3 * index + 1}" for index in range(sites)]
    estimates = planted_estimates("chance", adapters, names, seeds=(0, 1))
    write_estimates(estimates, folder / "results")
    (folder / "results" / "facts.json").write_text(json.dumps(facts_for(estimates)))
    noise, first = random.Random(0), Path()
    for site in names:
        for adapter, rank in adapters.items():
            near = [(site, other) for other in adapters if other != adapter]
            near += [(other, adapter) for other in names if other != site]
            place = folder / "features" / f"{site}-r{rank}"
            # Records of one dictionary serve all: what they say does not matter here.
            details = (
                []
                if first.name
                else [_record(noise, i, near, latents, tokens) for i in range(latents)]
            )
            head = _head(site, adapter, rank, latents, near)
            write_latents(place, head, _columns(noise, latents, tokens), details)
            for path in first.glob("details-*.json") if first.name else ():
                shutil.copy(path, place / path.name)
            first = first if first.name else place
    return folder


CHANCE = {"null": "covariance-matched", "level": 0.2, "low": 0.1, "high": 0.3}


def _head(
    site: str, adapter: str, rank: int, latents: int, near: list[tuple[str, str]]
) -> dict[str, object]:
    return {
        "site": site,
        "adapter": adapter,
        "rank": rank,
        "seed": 0,
        "n_latents": latents,
        "rows": 20000,
        "documents": 200,
        "base_latents": 16384,
        "neuronpedia": "gemma-2-9b/20-gemmascope-res-16k",
        "chance": CHANCE,
        "kinds": ["coding", "creative", "factual"],
        "kind_shares": [0.25, 0.25, 0.5],
        "near": [{"site": s, "adapter": a, "chance": CHANCE} for s, a in near],
        "built_chance": CHANCE,
    }


def _columns(noise: random.Random, n: int, tokens: str) -> dict[str, list[object]]:
    verdicts = ("above chance", "at chance", "below chance")

    def several() -> list[str]:
        return [f" {noise.choice(WORDS)}{tokens}" for _ in range(4)]

    written = sorted((round(noise.random(), 4) for _ in range(n)), reverse=True)
    return {
        "latent": noise.sample(range(n), n),
        "density": [round(noise.random() ** 4, 4) for _ in range(n)],
        "mean": [round(noise.random() * 9, 4) for _ in range(n)],
        "strength": [round(noise.random() * 9, 4) for _ in range(n)],
        "written": written,
        "loss": [round(noise.gauss(0, 1e-3), 6) if i < 8 else None for i in range(n)],
        "kl": [0.001 if i < 8 else None for i in range(n)],
        "kl_other": [0.0005 if i < 8 else None for i in range(n)],
        "attributed": [round(noise.gauss(0, 1e-3), 6) for _ in range(n)],
        "attributed_chance": [0.002] * n,
        "promotes": [several() for _ in range(n)],
        "fires": [several() for _ in range(n)],
        "cosine": [round(noise.random() / 2, 4) for _ in range(n)],
        "base": [noise.randrange(16384) for _ in range(n)],
        "verdict": [noise.choice(verdicts) for _ in range(n)],
    }


def _record(
    noise: random.Random, index: int, near: list[tuple[str, str]], latents: int, tokens: str
) -> dict[str, object]:
    def example(band: str, length: int) -> dict[str, object]:
        return {
            "band": band,
            "value": round(noise.random() * 9, 3),
            "at": length // 2,
            "tokens": [f" {noise.choice(WORDS)}{tokens}" for _ in range(length)],
            "shades": [noise.choice((0, 0, 30, 99)) for _ in range(length)],
        }

    def effects(sign: int) -> list[list[object]]:
        return [[f" {noise.choice(WORDS)}{tokens}", sign * (3.0 - 0.1 * i)] for i in range(10)]

    bands = ("strongest",) * 4 + ("upper quarter", "middle half", "lower quarter") * 2
    whole = index < WHOLE
    found: dict[str, object] = {
        "up": effects(1),
        "down": effects(-1),
        "density": [0.01, 0.02],
        "density_chance": 0.004,
        "mean": [1.5, 2.5],
        "max": 9.0,
        "histogram": [noise.randrange(900) for _ in range(16)],
        "kinds": [0.2, 0.3, 0.5],
        "examples": [example(b, 27 if whole else 13) for b in (bands if whole else bands[:2])],
    }
    if whole:
        pairs = [[noise.randrange(latents), round(noise.random(), 3)] for _ in near]
        found |= {"near": pairs, "built": [[7, 0.8], [2, 0.1]], "explained": 0.4}
    return found


def measure(page: Path, shots: Path | None) -> dict[str, float]:
    """Milliseconds in the browser, and what its console said; screenshots where asked for."""
    with tempfile.TemporaryDirectory() as profile:
        browser = Chromium(profile)
        try:
            found = _measured(browser, page)
            if shots is not None:
                _shoot(browser, page, shots)
            return found
        finally:
            browser.close()


def _measured(browser: Chromium, page: Path) -> dict[str, float]:
    browser.open(page.resolve().as_uri())
    paint = browser.js("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    timing = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    found = {"first paint, ms": paint, "ready, ms": browser.js(timing)}
    if browser.js("!!document.getElementById('features-search')"):
        # The whole table comes from beside the page.
        browser.until("!document.getElementById('features-count').textContent.includes('; of')", 60)
        for what, action in ACTIONS.items():
            found[f"{what}, ms"] = browser.js(action)
    drawn = "document.querySelectorAll('.chart svg').length"
    browser.until(f"{drawn} === document.querySelectorAll('.chart').length", 300)
    found["all figures, ms"] = browser.js("performance.now()")
    found["console errors"] = len(browser.errors)
    return found


# Each ends when the browser has laid out what changed.
_TIMED = (
    "(async () => {{ const s = document.getElementById('features-search'); {before} "
    "const t = performance.now(); {act} document.body.offsetHeight; "
    "return performance.now() - t; }})()"
)
_INPUT = "s.value = '{}'; s.dispatchEvent(new Event('input'));"
_OPEN = (
    "document.querySelector('[data-latent]').click(); "
    "while (!document.querySelector('.feature-passage')) await new Promise(requestAnimationFrame);"
)
ACTIONS = {
    "first search": _TIMED.format(before="", act=_INPUT.format("river")),
    "next search": _TIMED.format(before="", act=_INPUT.format("river mo")),
    "sort": _TIMED.format(
        before=_INPUT.format(""), act="document.querySelector('[data-sort=cosine]').click();"
    ),
    "open a latent": _TIMED.format(before="", act=_OPEN),
}


def _shoot(browser: Chromium, page: Path, shots: Path) -> None:
    shots.mkdir(parents=True, exist_ok=True)
    for name, (width, height, mobile) in SIZES.items():
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        browser.open(page.resolve().as_uri())
        time.sleep(3)
        whole = browser.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": min(whole["height"], 12000), "scale": 1}
        image = browser.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        (shots / f"{name}.png").write_bytes(base64.b64decode(image["data"]))
    printed = browser.call("Page.printToPDF", printBackground=True, paperWidth=8.27)
    (shots / "print.pdf").write_bytes(base64.b64decode(printed["data"]))


def main() -> None:
    """Build a report, or take a finished run's, and print what it weighs and how fast it is."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--latents", type=int, default=16384)
    options.add_argument("--sites", type=int, default=6)
    options.add_argument("--run", type=Path, help="a finished run with a report")
    options.add_argument("--shots", type=Path, help="folder for screenshots")
    options.add_argument("--keep", type=Path, help="folder for the run made from random data")
    given = options.parse_args()
    if CHROMIUM is None:
        sys.exit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as scratch:
        run = given.run or write_run(given.keep or Path(scratch), given.latents, given.sites)
        started = time.perf_counter()
        page = given.run / "report/index.html" if given.run else lorascope.report.build(run)
        rows: dict[str, float] = {}
        if given.run is None:
            conditions = len(RANKS) * given.sites
            print(f"{conditions} conditions of {given.latents:,} latents, made from random data")
            rows["built in, s"] = time.perf_counter() - started
        beside = [p.stat().st_size for p in (page.parent / "features").glob("*.js")]
        rows |= {"page, MB": page.stat().st_size / 1e6, "beside it, MB": sum(beside) / 1e6}
        rows["largest file beside it, MB"] = max(beside, default=0) / 1e6
        rows |= measure(page, given.shots)
        for what, value in rows.items():
            print(f"  {what:28} {value:10,.1f}")


if __name__ == "__main__":
    main()

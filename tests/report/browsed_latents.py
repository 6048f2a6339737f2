"""Latents for the feature browser whose names and tokens try to be markup."""

import json

HOSTILE = "</script><img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
SPOOFED = "a\u202eb\u0000\u2028"
LATENTS = 700


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
    third = ["above", "within", "below"]
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


def latents(page):
    """Numbers of the latents in the table, from top to bottom."""
    return page.js("[...document.querySelectorAll('[data-latent]')].map(b => +b.dataset.latent)")


def set_value(page, name, value, event):
    page.js(
        f"(() => {{ const e = document.getElementById('features-{name}'); e.value = "
        f"{json.dumps(value)}; e.dispatchEvent(new Event('{event}')); }})()"
    )

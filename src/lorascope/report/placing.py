"""The fields of a key beyond adapter, site, dictionary and seed, in a few words."""

from __future__ import annotations

from lorascope.results import Key


def further(key: Key) -> str:
    """Of tables' last column: "latent 17", "cut to 16", "at 2.600 nats/token"."""
    parts = [
        key.topic,
        "" if key.latent is None else f"latent {key.latent}",
        "" if key.size is None else f"cut to {key.size}",
        "" if key.loss is None else f"at {key.loss:.3f} nats/token",
        f"against {key.compared}" if key.compared else "",
        "" if key.k is None else f"k = {key.k}",
        key.module,
        key.model,
        key.setting,
    ]
    return ", ".join(part for part in parts if part)

"""Local random generators derived from one seed; the global random state is never touched."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on `seed` and every name, the same on every machine."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose: the same (seed, names) always gives the same numbers."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, *names))

"""Models loaded onto the second device; no test of it where there can be none.

The tests here have a process of their own, which `tests/test_devices.py` starts: torch counts the
devices that gradients may come from once, when the first gradient of the process is taken.
"""

from __future__ import annotations

import os

import pytest
import torch
from second_device import DEVICE, missing, move, second_device

from lorascope.models import load as loading

collect_ignore_glob = [] if os.environ.get("SECOND_DEVICE") else ["test_*.py"]


def pytest_collection_modifyitems(items):
    reason = missing()
    for item in items if reason else []:
        if "tests/devices/" in item.nodeid:
            item.add_marker(pytest.mark.skip(reason=reason))


class _There:
    """Opens a model on the CPU and moves it, with attention of plain products.

    Which kernel torch takes for attention depends on the device, and rounding on the kernel.
    """

    def __init__(self, opener):
        self._opener = opener

    def from_pretrained(self, *args, device_map, **kwargs):
        kwargs["attn_implementation"] = "eager"
        model, report = self._opener.from_pretrained(*args, device_map="cpu", **kwargs)
        there = torch.device(device_map).type == DEVICE.type
        return move(model) if there else model, report


@pytest.fixture
def there(monkeypatch):
    """The second device in use, on which models can be loaded by its name."""
    opener_of = loading.opener_of
    monkeypatch.setattr(loading, "opener_of", lambda config: _There(opener_of(config)))
    with second_device() as watch:
        yield watch

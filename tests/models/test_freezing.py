"""A fingerprint tells any change of the weights, and only that."""

import pytest
import torch
from torch import nn

from lorascope.models.freezing import fingerprint, frozen


def module(order=("a", "b")):
    m = nn.Module()
    for name in order:
        m.register_parameter(name, nn.Parameter(torch.arange(6.0).reshape(2, 3) + ord(name)))
    m.register_buffer("count", torch.tensor(3))
    return m


def test_fingerprint_depends_on_names_values_shapes_and_dtypes_only():
    reference = fingerprint(module())
    assert fingerprint(module(("b", "a"))) == reference
    assert fingerprint(module().requires_grad_(False).train()) == reference
    transposed = module()
    transposed.a.data = transposed.a.data.T.contiguous().T
    assert fingerprint(transposed) == reference
    changed = [module() for _ in range(5)]
    changed[0].a.data[1, 2] = torch.nextafter(changed[0].a.data[1, 2], torch.tensor(1e9))
    changed[1].count += 1
    changed[2].a.data = changed[2].a.data.reshape(3, 2)
    changed[3].a.data, changed[3].b.data = changed[3].b.data, changed[3].a.data
    changed[4].a.data = changed[4].a.data.view(torch.int32).view(torch.float32).bfloat16()
    prints = [fingerprint(m) for m in changed]
    assert len({reference, *prints}) == 6


def test_frozen_notices_a_change():
    m = module()
    with frozen(m):
        m.a.sum().backward()
    with pytest.raises(RuntimeError, match="Module was to stay frozen"), frozen(m):
        m.count += 1
    with pytest.raises(ZeroDivisionError), frozen(m):
        m.count.add_(1 // 0)

"""Checks that a module's weights, gradient flags and the global random state do not change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def fingerprint(module: nn.Module) -> str:
    """sha256 over the names, dtypes, shapes and bytes of all parameters and buffers.

    Independent of the order in which the module registered them, and of their device.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Require that the body leaves every parameter and buffer of `module` bit for bit as it was.

    Raises:
        RuntimeError: it did not; names the module's class.
    """
    before = fingerprint(module)
    yield
    if fingerprint(module) != before:
        raise RuntimeError(f"{type(module).__name__} was to stay frozen but its weights changed")


@contextmanager
def gradients_kept(module: nn.Module) -> Iterator[None]:
    """After the body every parameter that `module` has now requires a gradient as it does now."""
    kept = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        yield
    finally:
        for parameter, flag in kept:
            parameter.requires_grad_(flag)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """After the body the global random generators are where they are now."""
    # PEFT draws initial LoRA weights from the global generator before the file replaces them
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield

"""What a step takes to the model's device, so that the CPU can go on before the device is done."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`, of any shape and type.

    A copy from the CPU does not wait for what the device was given before it.
    """
    # The other way the CPU would read what is not there yet, and on MPS such a copy may come after
    # the CPU's memory is free again.
    free = tensor.device.type == "cpu" and torch.device(device).type != "mps"
    return tensor.to(device, non_blocking=free)


def places(
    mask: Bool[Tensor, "rows columns"], device: torch.device | str
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Rows and columns where a mask on the CPU is true, on `device`, row by row.

    An index by them gives what an index by the mask gives. The device would first have to be asked
    how many there are, and once more for gradients.
    """
    rows, columns = mask.nonzero(as_tuple=True)
    return sent(rows, device), sent(columns, device)

"""Time a ReLU dictionary's training step with explicit gradients against autograd.

    python bench/explicit_gradients.py [--device cuda] [--repeats 5]

Both sides take the same batches from the same start and are timed alternately in one run: the
explicit step in the products' type of this machine and in float32, autograd in float32 and under
bfloat16 autocast. Printed: rows/s (median over repeats), the ratio to float32 autograd, and peak
memory on a GPU. Adam with fused steps on every side.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lorascope.randomness import generator
from lorascope.training.architectures.relu import ReLU, ReluObjective
from lorascope.training.dictionaries import product_dtype

SHAPES = {
    "cpu": [(192, 1536, 1024), (256, 4096, 2048), (768, 16384, 2048)],
    "cuda": [(768, 16384, 4096), (3584, 16384, 4096)],
}
STEPS = {"cpu": 4, "cuda": 20}

Step = Callable[[Tensor], None]


def explicit(d: int, n: int, low: torch.dtype, device: str) -> Step:
    """The shipped training step."""
    objective = ReluObjective(ReLU(n_latents=n), torch.zeros(d), generator(0), low).to(device)
    objective.firing.counts = objective.firing.counts.to(device)
    optimizer = torch.optim.Adam(objective.parameters(), fused=True)

    def step(x: Tensor) -> None:
        objective.step(x)
        optimizer.step()

    return step


def autograd(d: int, n: int, autocast: bool, device: str) -> Step:
    """The same loss through autograd."""
    objective = ReluObjective(ReLU(n_latents=n), torch.zeros(d), generator(0)).to(device)
    optimizer = torch.optim.Adam(objective.parameters(), fused=True)

    def step(x: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
            loss = objective.plain_loss(x)
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Step, batch: Tensor, steps: int) -> float:
    """Wall-clock seconds of some steps, the device's queue included."""
    synchronise(batch)
    started = time.perf_counter()
    for _ in range(steps):
        step(batch)
    synchronise(batch)
    return time.perf_counter() - started


def synchronise(batch: Tensor) -> None:
    if batch.is_cuda:
        torch.cuda.synchronize()


def compare(d: int, n: int, rows: int, device: str, repeats: int) -> None:
    """One shape's table."""
    batch = torch.randn(rows, d, generator=generator(1)).to(device) / d**0.5
    low = product_dtype("auto", device)
    sides = {
        "autograd, float32": autograd(d, n, False, device),
        "autograd, bfloat16 autocast": autograd(d, n, True, device),
        "explicit, float32": explicit(d, n, torch.float32, device),
        f"explicit, {str(low).removeprefix('torch.')} products": explicit(d, n, low, device),
    }
    steps = STEPS[device]
    times: dict[str, list[float]] = {name: [] for name in sides}
    for step in sides.values():
        seconds(step, batch, 1)
    for _ in range(repeats):
        for name, step in sides.items():
            times[name].append(seconds(step, batch, steps))
    reference = statistics.median(times["autograd, float32"])
    print(f"\nd={d} n={n} batch={rows}")
    for name, taken in times.items():
        middle = statistics.median(taken)
        rate, ratio = rows * steps / middle, reference / middle
        share = 10 * d * n * rate / 1e12
        print(f"  {name:32s} {rate:12,.0f} rows/s  ×{ratio:.2f}  {share:.2f} TFLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor()
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {arguments.device} {name}, {threads} threads")
    for d, n, rows in SHAPES[arguments.device]:
        compare(d, n, rows, arguments.device, arguments.repeats)


if __name__ == "__main__":
    main()

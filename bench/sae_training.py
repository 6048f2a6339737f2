"""Time dictionary training against the installed peers, alternately in one run.

    python bench/sae_training.py                       # d=256, n=4096, and two other shapes
    python bench/sae_training.py --shape 256x4096 --architecture topk --steps 150

All sides get the same batches in the same order, from the same start, at the same rate; they take
turns of a few steps each. Printed for each: rows/s over the whole run, this package's ratio to it,
held-out FVU and L0 at the end, and the memory its steps needed at most. Peers that are not
installed are left out and named. Rows are sums of about 10 of n/4 planted directions, with Zipf
frequencies, and 1 % noise.

Peers: pip install sae-lens eai-sparsify dictionary-learning (no torchvision)
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch
from sides import SIDES, Side, Task, settings
from torch import Tensor
from torch.nn import functional

from lorascope.randomness import generator
from lorascope.training.architectures.objective import TrainingStart
from lorascope.training.dictionaries import product_dtype

HELD_OUT = 8192
TURN = 10
SHAPES = {
    "cpu": {"192x1536": 150, "256x4096": 400, "768x16384": 10},
    "cuda": {"768x16384": 300, "3584x16384": 200},
}
BATCH = {"cpu": 2048, "cuda": 8192}
PACKAGES = ("lorascope", "torch", "sae-lens", "dictionary-learning", "eai-sparsify")


def planted(task: Task, device: str) -> tuple[Tensor, Tensor]:
    """Training and held-out rows of mean norm 1: about 10 of n/4 planted directions each."""
    random = generator(0, "planted", task.d, task.n, device=device)
    count = task.n // 4
    truth = torch.randn(count, task.d, generator=random, device=device)
    truth = functional.normalize(truth, dim=1)
    ranks = torch.arange(1, count + 1, device=device, dtype=torch.float32)
    frequency = (10 * (1 / ranks) / (1 / ranks).sum()).clamp(max=0.5)
    parts = []
    for _ in range(0, task.steps * task.batch + HELD_OUT, HELD_OUT):
        active = torch.rand(HELD_OUT, count, generator=random, device=device) < frequency
        strengths = active * (0.5 + torch.rand(HELD_OUT, 1, generator=random, device=device))
        rows = strengths @ truth
        noise = torch.randn(rows.shape, generator=random, device=device) / task.d**0.5
        parts.append(rows + 0.01 * rows.norm(dim=1).mean() * noise)
    rows = torch.cat(parts)
    rows /= rows.norm(dim=1).mean()
    return rows[:-HELD_OUT], rows[-HELD_OUT:]


def first(task: Task, rows: Tensor) -> tuple[TrainingStart, Tensor]:
    """The start every side gets: encoders as long as makes first reconstructions fit."""
    directions = torch.randn(task.n, task.d, generator=generator(0, "start"))
    directions = functional.normalize(directions, dim=1).to(rows.device)
    start = TrainingStart(directions, rows[:16384].mean(0))
    objective = settings(task).objective(start)
    objective.calibrate(rows[:1024])
    return start, objective.encoder.detach()


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def take(side: Side, rows: Tensor, steps: range, task: Task, device: str) -> float:
    """Seconds of some steps, the device's queue included."""
    synchronise(device)
    started = time.perf_counter()
    for step in steps:
        side.step(rows[step * task.batch : (step + 1) * task.batch])
    synchronise(device)
    return time.perf_counter() - started


@torch.no_grad()
def quality(side: Side, held_out: Tensor) -> tuple[float, float]:
    """Held-out FVU and L0."""
    error, active = 0.0, 0.0
    for x in held_out.split(2048):
        z = side.encode(x)
        error += (side.decode(z) - x).square().sum().item()
        active += (z > 0).sum().item()
    variance = (held_out - held_out.mean(0)).square().sum().item()
    return error / variance, active / len(held_out)


def matrix_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the machine's best product in the type this package takes there."""
    size = 8192 if device == "cuda" else 4096 if dtype == torch.bfloat16 else 2048
    a = torch.randn(size, size, device=device).to(dtype)
    best = 0.0
    for _ in range(6):
        synchronise(device)
        started = time.perf_counter()
        a @ a
        synchronise(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def memory(task: Task, name: str, device: str) -> float:
    """MiB that three steps of one side need beyond its data, in a process of its own."""
    shape = f"{task.d}x{task.n}"
    options = ["--shape", shape, "--architecture", task.architecture, "--batch", str(task.batch)]
    command = [sys.executable, __file__, *options, "--device", device, "--memory", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure_memory(task: Task, name: str, device: str) -> None:
    """What `memory` runs."""
    task = replace(task, steps=3)
    rows, _ = planted(replace(task, steps=1, n=min(task.n, 1024)), device)
    rows = rows.repeat(3, 1)
    start, encoder = first(task, rows)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        before = _resident("VmRSS")
    side = SIDES[task.architecture][name](task, start, encoder)
    take(side, rows, range(3), task, device)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")
    print((peak - before) / 2**20)


def _resident(field: str) -> int:
    """Bytes of resident memory, now (VmRSS) or at most since the last reset (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def compare(task: Task, device: str, peak: float, wanted: list[str]) -> None:
    """One shape and architecture's table, of the sides wanted and this package's."""
    rows, held_out = planted(task, device)
    start, encoder = first(task, rows)
    sides: dict[str, Side] = {}
    missing = []
    for name, make in SIDES[task.architecture].items():
        if wanted and name not in ("lorascope", *wanted):
            continue
        try:
            sides[name] = make(task, start, encoder)
        except ImportError:
            missing.append(name)
    seconds = dict.fromkeys(sides, 0.0)
    for begin in range(0, task.steps, TURN):
        steps = range(begin, min(begin + TURN, task.steps))
        for name, side in sides.items():
            seconds[name] += take(side, rows, steps, task, device)
    total = task.steps * task.batch
    print(f"\n{task.architecture}, d={task.d}, n={task.n}, batch {task.batch}, {total:,} rows")
    print(f"  {'':22s} {'rows/s':>9s} {'ratio':>6s} {'FVU':>7s} {'L0':>6s} {'MiB':>6s}  of peak")
    for name, side in sides.items():
        rate, ratio = total / seconds[name], seconds[name] / seconds["lorascope"]
        fvu, l0 = quality(side, held_out)
        # The encoder's product alone; what dense training would need is five times as much.
        share = 2 * task.d * task.n * rate / peak
        needed = memory(task, name, device)
        line = f"{rate:9,.0f} {ratio:6.2f} {fvu:7.4f} {l0:6.1f} {needed:6.0f}"
        print(f"  {name:22s} {line}  {share:.0%} (dense {5 * share:.0%})", flush=True)
    if missing:
        print(f"  not installed: {', '.join(missing)}")


def main() -> None:
    description = __doc__.split("\n\n")[0] if __doc__ else ""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", action="append", help="d x n, as in 256x4096; repeatable")
    parser.add_argument("--architecture", action="append", choices=sorted(SIDES))
    names = sorted({name for sides in SIDES.values() for name in sides})
    parser.add_argument("--side", action="append", choices=names, help="these only; repeatable")
    parser.add_argument("--steps", type=int, help="steps of every side")
    parser.add_argument("--batch", type=int, help="rows a step")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = arguments.device
    tasks: list[Task] = []
    for shape in arguments.shape or SHAPES[device]:
        d, n = map(int, shape.split("x"))
        steps = arguments.steps or SHAPES[device].get(shape, 100)
        batch = arguments.batch or BATCH[device]
        wanted = arguments.architecture or sorted(SIDES)
        tasks += [Task(architecture, d, n, batch, steps) for architecture in wanted]
    if arguments.memory:
        measure_memory(tasks[0], arguments.memory, device)
        return
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    found = {p.metadata["Name"]: p.version for p in metadata.distributions()}
    print(", ".join(f"{p} {found[p]}" for p in PACKAGES if p in found))
    own = product_dtype("auto", device)
    low = str(own).removeprefix("torch.")
    peak = matrix_peak(device, own)
    threads = torch.get_num_threads()
    print(f"{device} {name}, {threads} threads, {low} products up to {peak / 1e9:,.0f} GFLOP/s")
    for task in tasks:
        compare(task, device, peak, arguments.side or [])


if __name__ == "__main__":
    main()

"""Time the geometry of two dictionaries and of activations against the obvious code.

    python bench/geometry.py            # 16,384 directions of width 3,584, k = 256; minutes
    python bench/geometry.py --quick    # smaller, seconds

Three parts, both sides taking turns in one run on the same random data: the largest cosine of each
direction with another dictionary's, the principal angles between the top-k subspaces of the two,
and CKA of a site's base rows with each adapter's delta and with base + delta. The obvious code is
chunked float32 products, torch.linalg.svd, and float32 products of centred rows for every pair of
every adapter. Printed: seconds (median over repeats), their ratio, the memory needed at most beyond
the inputs (Linux and GPUs), and how far the results lie apart; with --exact also how far each
side's lie from float64. Directions are of two kinds: with a covariance whose eigenvalues fall as
1/i, a fifth of them shared by both dictionaries up to noise, and random ones, whose flat spectrum
is the hardest for principal subspaces.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from lorascope.geometry.cka import SiteMoments
from lorascope.geometry.cosine import max_cosine, unit_rows
from lorascope.geometry.precision import bfloat16_pays
from lorascope.geometry.subspaces import principal_angles, principal_subspace
from lorascope.randomness import generator

Results = tuple[Tensor, ...]
Job = Callable[[], Results]


@dataclass(frozen=True)
class Shape:
    """How much of everything."""

    directions: int
    width: int
    k: int
    rows: int
    adapters: int


PAPER = Shape(directions=16_384, width=3_584, k=256, rows=20_000, adapters=4)
QUICK = Shape(directions=2_048, width=1_280, k=64, rows=2_560, adapters=2)
Drawn = Callable[[Shape, str], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Part:
    """One thing computed both ways, and in float64.

    Attributes:
        apart: what the results are, and how far two of them lie apart.
    """

    name: str
    obvious: Job
    ours: Job
    exact: Job
    apart: Callable[[Results, Results], str]


def decaying(shape: Shape, device: str) -> tuple[Tensor, Tensor]:
    """Two dictionaries of one covariance, a fifth of the second being noisy copies of the first."""
    d, random = shape.width, generator(0, "decaying", device=device)
    axes = torch.linalg.qr(torch.randn(d, d, generator=random, device=device)).Q
    root = torch.arange(1, d + 1, device=device).rsqrt()[:, None] * axes.T

    def drawn(n: int) -> Tensor:
        return unit_rows(torch.randn(n, d, generator=random, device=device) @ root)

    first, second = drawn(shape.directions), drawn(shape.directions)
    copies = shape.directions // 5
    second[:copies] = unit_rows(first[:copies] + 0.7 * drawn(copies))
    return first, second


def isotropic(shape: Shape, device: str) -> tuple[Tensor, Tensor]:
    """Two dictionaries of random directions."""
    random = generator(0, "isotropic", device=device)
    size = shape.directions, shape.width
    first, second = (torch.randn(size, generator=random, device=device) for _ in range(2))
    return unit_rows(first), unit_rows(second)


KINDS: dict[str, Drawn] = {"decaying": decaying, "random": isotropic}


def activations(shape: Shape, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Base rows with an offset and outlier dimensions, and deltas of low rank and noise."""
    n, d, random = shape.rows, shape.width, generator(0, "activations", device=device)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=random, device=device)

    scale = normal(d).mul(0.5).exp()
    scale[:4] *= 30
    base = normal(n, d) * scale + 5 * normal(d)
    deltas = {}
    for rank in (4 * 2**i for i in range(shape.adapters)):
        deltas[f"r{rank}"] = 0.1 * normal(n, rank) @ normal(rank, d) + 0.02 * base
        deltas[f"r{rank}"] += 0.3 * normal(n, d)
    return base, deltas


def cosines(kind: str, first: Tensor, second: Tensor) -> Part:
    """The largest cosine of each of the first directions."""

    def obvious(dtype: torch.dtype = torch.float32) -> Results:
        a, b = (x.to(dtype) / x.to(dtype).norm(dim=1, keepdim=True) for x in (first, second))
        best = [(some @ b.T).max(dim=1) for some in a.split(2048)]
        return torch.cat([x.values for x in best]), torch.cat([x.indices for x in best])

    def apart(ours: Results, theirs: Results) -> str:
        same = (ours[1] == theirs[1]).double().mean().item()
        return f"cosines by at most {_furthest(ours[0], theirs[0]):.1e}, {same:.2%} the same column"

    return Part(
        f"max cosine, {kind}",
        obvious,
        lambda: max_cosine(first, second),
        lambda: obvious(torch.float64),
        apart,
    )


def angles(kind: str, first: Tensor, second: Tensor, k: int) -> Part:
    """Principal angles between the top-k subspaces."""

    def obvious(dtype: torch.dtype = torch.float32) -> Results:
        a, b = (torch.linalg.svd(x.to(dtype), full_matrices=False).Vh[:k] for x in (first, second))
        inner = torch.linalg.svdvals(a @ b.T).clamp(max=1.0)
        return (torch.rad2deg(torch.acos(inner)),)

    def ours() -> Results:
        return (principal_angles(*(principal_subspace(x, k) for x in (first, second))),)

    def apart(ours: Results, theirs: Results) -> str:
        between = f"angles by at most {_furthest(ours[0], theirs[0]):.1e}°"
        return f"{between}, mean {ours[0].mean():.3f}° and {theirs[0].mean():.3f}°"

    return Part(f"top-{k} angles, {kind}", obvious, ours, lambda: obvious(torch.float64), apart)


def alignment(base: Tensor, deltas: dict[str, Tensor]) -> Part:
    """Plain CKA of the base with each delta, and with base + delta."""

    def cka(x: Tensor, y: Tensor) -> Tensor:
        x, y = x - x.mean(0), y - y.mean(0)
        own = torch.linalg.norm(x.T @ x) * torch.linalg.norm(y.T @ y)
        return torch.linalg.norm(y.T @ x) ** 2 / own

    def obvious(dtype: torch.dtype = torch.float32) -> Results:
        found = []
        for delta in deltas.values():
            x, y = base.to(dtype), delta.to(dtype)
            found += [cka(x, y), cka(x, x + y)]
        return (torch.stack(found),)

    def ours() -> Results:
        first = {name: delta[:2048] for name, delta in deltas.items()}
        moments = SiteMoments(base[:2048], first).update(base, deltas)
        pairs = [pair.plain for name in deltas for pair in moments.cka(name)]
        return (torch.tensor(pairs, dtype=torch.float64),)

    def apart(ours: Results, theirs: Results) -> str:
        return f"CKA by at most {_furthest(ours[0], theirs[0]):.1e}"

    name = f"CKA, {len(deltas)} adapters"
    return Part(name, obvious, ours, lambda: obvious(torch.float64), apart)


def _furthest(ours: Tensor, theirs: Tensor) -> float:
    return (ours.double().cpu() - theirs.double().cpu()).abs().max().item()


def run(job: Job, device: str) -> tuple[float, float, Results]:
    """Seconds, MiB needed beyond what was there before, and the results."""
    before = _start_counting(device)
    started = time.perf_counter()
    results = job()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, (_most(device) - before) / 2**20, results


def _start_counting(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if platform.system() == "Linux":
        # What earlier jobs freed must not be there to be taken again unseen.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return _resident("VmRSS")


def _most(device: str) -> float:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")


def _resident(field: str) -> float:
    """Bytes of resident memory, now (VmRSS) or at most (VmHWM); nan where it is not told."""
    if platform.system() != "Linux":
        return float("nan")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def compare(part: Part, device: str, repeats: int, exact: bool) -> tuple[float, float]:
    """Prints one part's lines; returns the seconds of both sides."""
    seconds: tuple[list[float], list[float]] = [], []
    memory, results = [0.0, 0.0], list[Results]()
    for _ in range(repeats):
        results = []
        for side, job in enumerate((part.obvious, part.ours)):
            taken, needed, found = run(job, device)
            seconds[side].append(taken)
            memory[side] = max(memory[side], needed)
            results.append(found)
    obvious, ours = (statistics.median(taken) for taken in seconds)
    line(part.name, obvious, ours, *memory)
    print(f"    apart: {part.apart(results[1], results[0])}", flush=True)
    if exact:
        truth = part.exact()
        for who, found in zip(("obvious", "ours"), results, strict=True):
            print(f"    {who} from float64: {part.apart(found, truth)}", flush=True)
    return obvious, ours


def line(name: str, obvious: float, ours: float, *memory: float) -> None:
    """A row of the table."""
    needed = " ".join(f"{mib:8.0f}" for mib in memory)
    print(f"  {name:26s} {obvious:9.2f} {ours:8.2f} {obvious / ours:6.2f} {needed}", flush=True)


def processor(device: str) -> str:
    """What the figures were read on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    low = "with" if bfloat16_pays(torch.empty(0)) else "without"
    threads = torch.get_num_threads()
    return f"{platform.machine()}, {threads} threads, {low} bfloat16 products"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smaller shape")
    parser.add_argument("--kind", choices=sorted(KINDS), help="one kind of directions only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--exact", action="store_true", help="compare with float64 too: minutes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    shape, device = QUICK if arguments.quick else PAPER, arguments.device
    versions = f"lorascope {metadata.version('lorascope')}, torch {torch.__version__}"
    print(f"{versions}, Python {platform.python_version()}, {device} {processor(device)}")
    print(f"{shape}")
    print(f"  {'':26s} {'obvious s':>9s} {'ours s':>8s} {'ratio':>6s} {'MiB':>8s} {'ours MiB':>8s}")
    how = (device, arguments.repeats, arguments.exact)
    shared = compare(alignment(*activations(shape, device)), *how)
    for kind in [arguments.kind] if arguments.kind else KINDS:
        first, second = KINDS[kind](shape, device)
        parts = cosines(kind, first, second), angles(kind, first, second, shape.k)
        totals = [shared, *(compare(part, *how) for part in parts)]
        line(f"total, {kind}", *(sum(side) for side in zip(*totals, strict=True)))


if __name__ == "__main__":
    main()

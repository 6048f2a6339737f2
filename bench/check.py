"""Time and memory of `lorascope check` and `lorascope scan` on adapters of random factors.

    python bench/check.py                # a 70B-shape adapter, scans of 200 and of 2,000: minutes
    python bench/check.py --quick        # smaller, seconds
    python bench/check.py --only check   # or scan, or model
    python bench/check.py --only model --model FOLDER --against OTHER/src

The adapter has rank 64 on the seven linear maps of 80 blocks, in bfloat16 (1.7 GB on disk); the
scanned ones rank 8 on two maps of 12 blocks of width 256. With a model the adapter has rank 8 on
all linear maps of its blocks. The commands run as processes of their own, as a user starts them.
Printed: CPU and wall seconds, and the most memory that the command and its workers held, each
process for itself. --against runs another version's source alternately and prints the ratios. What
is written goes below --folder and is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from lorascope.models.load import read_config, skeleton
from lorascope.models.sites import block_list

D, KV, MLP = 8192, 1024, 28672
LARGE = {
    "self_attn.q_proj": (D, D),
    "self_attn.k_proj": (KV, D),
    "self_attn.v_proj": (KV, D),
    "self_attn.o_proj": (D, D),
    "mlp.gate_proj": (MLP, D),
    "mlp.up_proj": (MLP, D),
    "mlp.down_proj": (D, MLP),
}
UNITS = ("cpu s", "wall s", "MB")
SMALL = {"self_attn.q_proj": (256, 256), "mlp.down_proj": (256, 688)}


def write(folder: Path, shapes: dict[str, tuple[int, int]], blocks: int, r: int, seed: int) -> None:
    """An adapter of Gaussian factors in bfloat16."""
    random = torch.Generator().manual_seed(seed)
    scale = float(torch.randn((), generator=random).mul(0.2).exp())
    tensors = {}
    for block in range(blocks):
        for module, (out, width) in shapes.items():
            path = f"base_model.model.model.layers.{block}.{module}"
            A = torch.randn(r, width, generator=random)
            B = 0.01 * scale * torch.randn(out, r, generator=random)
            tensors[f"{path}.lora_A.weight"] = A.bfloat16()
            tensors[f"{path}.lora_B.weight"] = B.bfloat16()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    names = sorted({module.rpartition(".")[2] for module in shapes})
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 2 * r, "target_modules": names}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def measured(*arguments: str, source: Path | None = None) -> dict[str, float]:
    """Run lorascope once, alone in a process of its own that counts its children.

    Args:
        source: folder of the version that is run; this one's by default.
    """
    code = (
        "import json, resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))\n"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "lorascope", *arguments]
    own = {} if source is None else {"PYTHONPATH": str(source)}
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, "--quiet"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **own},
    )
    cpu, memory = json.loads(done.stdout.splitlines()[-1])
    return dict(zip(UNITS, (cpu, time.perf_counter() - begun, memory), strict=True))


def checks(folder: Path, quick: bool) -> Iterator[tuple[str, dict[str, float]]]:
    """One large adapter, from its files alone."""
    blocks = 4 if quick else 80
    write(folder / "large", LARGE, blocks, 64, 0)
    size = (folder / "large" / "adapter_model.safetensors").stat().st_size
    yield f"check, {blocks} blocks, {size / 1e9:.2f} GB", measured("check", str(folder / "large"))
    shutil.rmtree(folder / "large")


def scans(folder: Path, quick: bool) -> Iterator[tuple[str, dict[str, float]]]:
    """Small adapters by the hundred and by the thousand."""
    for count in (20, 60) if quick else (200, 2000):
        for i in range(count):
            write(folder / f"of{count}" / f"{i:05}", SMALL, 12, 8, i)
        out = folder / f"out{count}"
        arguments = ["scan", str(folder / f"of{count}"), "--out", str(out), "--workers", "2"]
        yield f"scan of {count:,}, 2 processes", measured(*arguments)
        yield f"scan of {count:,}, once more", measured(*arguments)


def with_model(
    folder: Path, model: str, against: Path | None, repeats: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """A check on a base model; where another version is given both run in turn."""
    bare = skeleton(read_config(model))
    if bare is None:
        raise SystemExit(f"{model}: its layers are made when its weights are read")
    block = block_list(bare)[0]
    shapes = {
        path: (module.out_features, module.in_features)
        for path, module in block.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    write(folder / "adapter", shapes, len(block_list(bare)), 8, 0)
    sides = {"this": None} if against is None else {"other": against, "this": None}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, source in sides.items():
            arguments = ["check", str(folder / "adapter"), "--model", model, "--force"]
            found[side].append(measured(*arguments, source=source))
            yield f"check with a model, {side}", found[side][-1]
    if against is not None:
        least = {s: {u: min(one[u] for one in runs) for u in UNITS} for s, runs in found.items()}
        yield "other over this", {f"x {u}": least["other"][u] / least["this"][u] for u in UNITS}
    shutil.rmtree(folder / "adapter")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("check", "scan", "model"))
    parser.add_argument("--model", default="embedded", help="base of the check with a model")
    parser.add_argument("--against", type=Path, default=None, help="src of another version")
    parser.add_argument("--repeats", type=int, default=2, help="of the check with a model")
    parser.add_argument("--folder", type=Path, default=None, help="where to write; removed after")
    given = parser.parse_args()
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        parts = {
            "check": checks(Path(place), given.quick),
            "scan": scans(Path(place), given.quick),
            "model": with_model(Path(place), given.model, given.against, given.repeats),
        }
        for name, part in parts.items():
            if given.only in (None, name):
                for what, numbers in part:
                    told = ", ".join(f"{value:,.1f} {unit}" for unit, value in numbers.items())
                    print(f"{what}: {told}", flush=True)


if __name__ == "__main__":
    main()

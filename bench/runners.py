"""Time one study's stages made in one process, in several, and on a Ray cluster of two nodes.

    python bench/runners.py                              # the study of `lorascope demo --quick`
    python bench/runners.py studies/embedded.yaml --workers 2

Every process has one thread, so the results have to be the same bit for bit: the number of
estimates that are equal to those of the first is printed beside the seconds of the whole command
and of all its processes. Ray is left out where it is not installed (`pip install
'lorascope[cluster]'`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from lorascope.machine import processors
from lorascope.results import Estimates
from lorascope.studies.audit.demo import demo_study

# The study itself gains nothing by libraries that start threads of their own.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@contextmanager
def ray_cluster(nodes: int) -> Iterator[str]:
    """Address of a cluster of so many nodes of one processor each, on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


def timed(study: Path, out: Path, *options: str) -> float:
    """Seconds of `lorascope audit` with these options."""
    line = [sys.executable, "-m", "lorascope", "audit", str(study), "--out", str(out), "--quiet"]
    begun = time.perf_counter()
    subprocess.run([*line, "--threads", "1", *options], env=ONE_THREAD, check=True)
    return time.perf_counter() - begun


def shown(name: str, seconds: float, out: Path, first: Path) -> None:
    """Print a row: times, and how many estimates are equal to those of the first run."""
    ours, theirs = (
        Estimates.read(run / "results" / "estimates.parquet").to_frame() for run in (out, first)
    )
    joined = [frame.astype(str).agg("|".join, axis=1) for frame in (ours, theirs)]
    same = int((joined[0].to_numpy() == joined[1].to_numpy()).sum())
    stages = json.loads((out / "manifest.json").read_text("utf-8"))["stages"].values()
    total = sum(stage["cpu_seconds"] for stage in stages)
    print(f"{name:36}{seconds:8.1f} s{total:10.1f} CPU s in stages   {same} of {len(ours)} equal")


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, nargs="?", help="an audit's study file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="keep the runs there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        study = given.study or folder / "study.json"
        if given.study is None:
            folder.mkdir(parents=True, exist_ok=True)
            plain = demo_study(quick=True).plain()
            study.write_text(json.dumps(plain), encoding="utf-8")
        names = ("lorascope", "torch")
        print(", ".join(f"{name} {version(name)}" for name in names), platform.machine())
        print(f"{processors()} processors; one thread in each process")
        first = folder / "here"
        shown("one process", timed(study, first, "--workers", "1"), first, first)
        out = folder / "pool"
        seconds = timed(study, out, "--workers", str(given.workers))
        shown(f"--workers {given.workers}", seconds, out, first)
        if importlib.util.find_spec("ray") is None:
            print("Ray is not installed")
            return
        out = folder / "ray"
        with ray_cluster(2) as address:
            seconds = timed(study, out, "--ray", address)
        shown("--ray, two nodes of one processor", seconds, out, first)


if __name__ == "__main__":
    main()

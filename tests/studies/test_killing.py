"""A study killed at any moment ends with the same results as one that never was, bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from lorascope.randomness import generator

TIMES = 10
# Most stages that a process finishes before it is killed.
MOST = 3
# What records say of how long things took and where they lie; the page repeats some of it.
TOOK = {"seconds", "fit_seconds", "cpu_seconds", "peak_memory", "finished"}
PLACED = {"command", "report/index.html", "digests"}

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path):
    """`start(run, *command)`: a process of its own that runs a study into a folder."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def begin(run, *command):
        with (tmp_path / "said.txt").open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "lorascope", *command, "--quiet", "--out", str(run)],
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    return begin


def results(run):
    """{file: its bytes} of everything a run keeps but pages and what tells of time."""
    found = {}
    for path in sorted(run.rglob("*")):
        where = path.relative_to(run)
        # Pages, those of readings too, say how long it took.
        if not path.is_file() or where.parts[0] == "report" or path.name == "index.html":
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(without_time(json.loads(content))).encode()
        found[str(where)] = content
    return found


def without_time(data):
    """Plain data without what no two runs share."""
    if isinstance(data, dict):
        kept = (key for key in data if key not in TOOK | PLACED)
        return {key: without_time(data[key]) for key in kept}
    return [without_time(item) for item in data] if isinstance(data, list) else data


def same(found, expected):
    assert found.keys() == expected.keys()
    return [name for name, content in expected.items() if found[name] != content]


def stop(process, by):
    """Stop a run by a signal; SIGTERM lets it clean up and say so."""
    os.killpg(process.pid, by)
    code = process.wait(120)
    # Before the command line is up nothing catches the signal; and a run may end on its own.
    assert code in ((-by, 0) if by == signal.SIGKILL else (-by, 128 + by, 0))


def finished(run):
    """How many stages the run has noted as finished."""
    manifest = run / "manifest.json"
    return len(json.loads(manifest.read_text())["stages"]) if manifest.is_file() else 0


def killed(process, run, more, seconds, by):
    """Kill a run so long after it has finished so many more stages; how many it then has."""
    wanted = finished(run) + more
    while process.poll() is None and finished(run) < wanted:
        time.sleep(0.005)
    time.sleep(seconds)
    if process.poll() is None:
        stop(process, by)
    assert process.returncode in (0, -by, 128 + by)
    return finished(run)


def check(start, folder, *command):
    """Kill a study ten times at random, by turns with SIGKILL and SIGTERM, then let it end.

    A study that has its results when it is killed ends, is compared, and begins anew.
    """
    assert start(folder / "whole", *command).wait() == 0, (folder / "said.txt").read_text()
    expected = results(folder / "whole")
    assert any(name.endswith("estimates.parquet") for name in expected)
    assert any(name.endswith(".safetensors") for name in expected)
    stages = json.loads((folder / "whole" / "manifest.json").read_text())["stages"]
    run, unfinished = folder / "killed", set()
    random = generator(0, "moments")
    # Into the longest stages too, and, after none, from while libraries are imported.
    longest = max(max(one["seconds"] for one in stages.values()), 1.0)
    for number in range(TIMES):
        more = int(torch.randint(MOST + 1, (), generator=random))
        seconds = float(torch.rand((), generator=random)) ** 2 * longest
        by = (signal.SIGKILL, signal.SIGTERM)[number % 2]
        done = killed(start(run, *command), run, more, seconds, by)
        if not (run / "results").exists():
            unfinished.add(done)
            continue
        assert start(run, *command).wait() == 0
        assert same(results(run), expected) == []
        shutil.rmtree(run)
    # Killed where different stages were being made.
    assert len(unfinished) >= 5
    assert start(run, *command).wait() == 0
    assert same(results(run), expected) == []
    assert not list(run.rglob("*partial*"))


def test_an_audit_killed_at_random_moments_ends_the_same(start, study, tmp_path):
    (tmp_path / "study.yaml").write_text(study.yaml(), encoding="utf-8")
    check(start, tmp_path, "audit", str(tmp_path / "study.yaml"))


def test_an_adapt_study_killed_at_random_moments_ends_the_same(
    start, tiny_checkpoint, records, tmp_path
):
    """Without its times, which no two runs share."""
    train = {"sites": ["layers.0", "layers.1"], "n_latents": [64], "k": [4, 8], "tokens": 2048}
    settings = {
        "workflow": "adapt",
        "model": str(tiny_checkpoint("llama")),
        "device": "cpu",
        "texts": {"sources": [str(records)], "held_out": 0.3},
        "context": 32,
        "dictionaries": {"train": {**train, "batch": 128}},
        "fit": {
            "tokens": 1200,
            "batch": 4,
            "evaluations": 2,
            "random_draws": 2,
            "products": "float32",
            "lora": {"rank": 2, "blocks": "all", "rate": 0.01},
        },
        "experiments": {
            "ranks": [2],
            "baselines": ["affine+dictionary", "lora"],
            "several": [["layers.0", "layers.1"]],
            "steering": {
                "latents": [0, 1, 2, 3, 4, 5],
                "settings": {"texts": 8, "alphas": [1.0], "random": 2},
            },
        },
        "seeds": [0],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    check(start, tmp_path, "adapt", str(tmp_path / "study.yaml"))


def test_a_latent_study_killed_at_random_moments_ends_the_same(start, latent_settings, tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(latent_settings()), encoding="utf-8")
    check(start, tmp_path, "latent", str(tmp_path / "study.yaml"))

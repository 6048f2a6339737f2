"""TensorBoard and Weights & Biases look at a run, change nothing, and hold what it went through."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lorascope as ls
from lorascope.training.loop import StepProgress
from lorascope.training.trackers import TensorBoard, WandB

ROWS = torch.randn(900, 12, generator=torch.Generator().manual_seed(0))
SETTINGS, FITTING = ls.TopK(n_latents=24, k=3), ls.Fitting(epochs=4, batch=128)


def fitted(observers):
    job = ls.Job(SETTINGS, observers=observers)
    [(dictionary, history)] = ls.fit_many([job], ROWS, FITTING)
    return dictionary, history


@pytest.fixture(scope="module")
def plain():
    return fitted([])


def same(one, other):
    return all(torch.equal(t, other.get_buffer(name)) for name, t in one.named_buffers())


def test_tensorboard_holds_every_nth_step_and_the_last(plain, tmp_path):
    with TensorBoard(tmp_path / "logs", every=7) as tracker:
        dictionary, history = fitted([tracker])
    assert same(dictionary, plain[0])
    found = EventAccumulator(str(tmp_path / "logs"))
    found.Reload()
    series = history.series("error")
    steps = [*range(7, len(series) + 1, 7)]
    steps += [] if len(series) % 7 == 0 else [len(series)]
    written = found.Scalars("error")
    assert [event.step for event in written] == steps
    assert [event.value for event in written] == pytest.approx([series[s - 1] for s in steps])
    assert {"error", "l0", "seconds"} <= set(found.Tags()["scalars"])


def test_wandb_writes_offline_and_sends_nothing(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    logged = {}
    with WandB("lorascope", tmp_path, name="topk", settings=FITTING.plain(), every=5) as tracker:
        log = tracker.run.log
        monkeypatch.setattr(
            tracker.run,
            "log",
            lambda found, step: (logged.update({step: found}), log(found, step=step)),
        )
        dictionary, history = fitted([tracker])
        assert tracker.run.offline
        assert tracker.run.config["batch"] == 128
    series = history.series("error")
    assert list(logged) == sorted({*range(5, len(series) + 1, 5), len(series)})
    assert [one["error"] for one in logged.values()] == [series[step - 1] for step in logged]
    assert same(dictionary, plain[0])
    [folder] = (tmp_path / "wandb").glob("offline-run-*")
    [file] = folder.glob("*.wandb")
    # Its own format; names of what was logged stand in it as they are. Another process writes it.
    until = time.monotonic() + 60
    while b"error" not in file.read_bytes() and time.monotonic() < until:
        time.sleep(0.1)
    assert b"error" in file.read_bytes()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("tensorboard", lambda folder: TensorBoard(folder)),
        ("wandb", lambda folder: WandB("lorascope", folder)),
    ],
)
def test_without_the_library_one_line_says_what_to_install(name, make, tmp_path, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == name] + [name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(ls.InputError, match=rf"^{name} is not installed.*lorascope\[trackers\]"):
        make(tmp_path)


def test_scalars_are_read_only_when_they_are_written(tmp_path):
    class Watched(torch.Tensor):
        read = 0

        def __float__(self):
            Watched.read += 1
            return 0.0

    value = torch.zeros(()).as_subclass(Watched)
    with TensorBoard(tmp_path, every=10) as tracker:
        for step in range(25):
            tracker(StepProgress(step, 25, {"loss": value}))
    assert Watched.read == 3  # 10, 20 and the last


def test_no_steps_between_is_refused(tmp_path):
    with pytest.raises(ls.InputError, match="give 1 or more"):
        TensorBoard(tmp_path, every=0)

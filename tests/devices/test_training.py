"""Dictionaries and adapters trained on the second device: the CPU's weights, and steps that run on.

A step waits for nothing, but where the objective looks which latents are silent.
"""

import pytest
import torch
from second_device import OnDevice, second_device
from transformers import AutoTokenizer
from waits import Marks

from lorascope.activations.mixing import TensorRows
from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import windows
from lorascope.randomness import generator
from lorascope.training import dictionaries
from lorascope.training.adapters import train_adapter
from lorascope.training.architectures import (
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    ReLU,
    TopK,
    objective,
)
from lorascope.training.architectures.revival import LOOK_EVERY
from lorascope.training.checkpoints import Checkpoint
from lorascope.training.dictionaries import RESAMPLE_AT, Job, fit_many
from lorascope.training.settings import Fitting, LoraTraining

ROWS = torch.randn(1000, 16, generator=generator(0, "rows")) + 0.3
FITTING = Fitting(epochs=4, batch=64, products="float32")
STEPS = FITTING.steps(len(ROWS))
EPOCH = len(ROWS) // FITTING.batch
PENALISED = {
    "relu": ReLU(n_latents=64, l1=0.1),
    "relu to an l0": ReLU(n_latents=64, l1=0.1, target_l0=4.0),
    "gated": Gated(n_latents=64),
    "jumprelu": JumpReLU(n_latents=64),
}
REVIVED = {
    "topk": TopK(n_latents=64, k=4, dead_after=200),
    "batch topk": BatchTopK(n_latents=64, k=4, dead_after=200),
    "matryoshka": Matryoshka(n_latents=64, k=4, dead_after=200),
}
OBJECTIVES = "training/architectures/"


@pytest.fixture
def dense(monkeypatch):
    """The CPU takes matrix products too, as an accelerator does, so that numbers can be equal."""
    monkeypatch.setattr(objective, "SPARSE_BELOW", 0.0)


def equal(ours, theirs):
    pairs = zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("name", [*PENALISED, *REVIVED])
def test_a_dictionary_is_the_cpus_and_its_steps_wait_for_nothing(name, dense):
    architecture = {**PENALISED, **REVIVED}[name]
    [(plain, history)] = fit_many([Job(architecture)], ROWS, FITTING)
    with second_device() as watch:
        marks = Marks(watch)
        job = Job(architecture, observers=[marks])
        [(there, own)] = fit_many([job], ROWS, FITTING, device="second:0")
        # Dictionaries are handed over on the CPU.
        assert not any(isinstance(one, OnDevice) for one in there.state_dict().values())
        assert equal(there, plain)
        before = len(watch.waits)
        assert own.series("error") == history.series("error")
        assert own.series("l0") == history.series("l0")
        assert len(watch.waits) == before + 2
    assert watch.operations > 20 * STEPS
    # On which latents are silent depends which weights are touched: the step has to wait.
    if name in PENALISED:
        looks = {round(share * STEPS) for share in RESAMPLE_AT}
        asked = {"lorascope/training/resampling.py:resample"}
    else:
        looks = set(range(0, STEPS, LOOK_EVERY))
        asked = {f"{OBJECTIVES}revival.py:prepare"}
    for step, (waits, copies) in enumerate(marks.steps(), start=1):
        assert set(waits) == (asked if step in looks else set()), (step, waits)
        assert sum(waits.values()) <= 1, (step, waits)
        # A new order of the rows in memory, once an epoch.
        assert set(copies) <= {"lorascope/activations/mixing.py:batches"}, (step, copies)
        assert sum(copies.values()) == (step % EPOCH == 0), (step, copies)


def test_latents_start_anew_and_errors_are_followed_there_as_here(dense):
    """Silent latents and held-out rows, which the runs above do without."""
    held, fast = ROWS[:100], FITTING.model_copy(update={"rate": 2e-2})
    architecture = ReLU(n_latents=64, l1=0.5)
    [(plain, history)] = fit_many([Job(architecture)], ROWS, fast, held_out=held)
    silent = fit_many([Job(architecture.model_copy(update={"resample": False}))], ROWS, fast)
    assert not torch.equal(silent[0][0].directions, plain.directions)
    with second_device():
        [(there, own)] = fit_many([Job(architecture)], ROWS, fast, held_out=held, device="second:0")
        assert equal(there, plain)
        assert own.points("held_out_error") == history.points("held_out_error")
        assert len(own.points("held_out_error")) == FITTING.epochs


class Parts(TensorRows):
    """Rows in parts of 100, as shards on disk are."""

    @property
    def sizes(self):
        return [100] * (len(self.rows) // 100)

    def chunks(self, order=None):
        for part in range(len(self.sizes)) if order is None else order:
            yield self.rows[100 * part : 100 * (part + 1)]


def test_rows_on_disk_are_mixed_window_by_window_there_as_here(dense):
    rows, architecture = Parts(ROWS), TopK(n_latents=64, k=4)
    [(plain, _)] = fit_many([Job(architecture)], rows, FITTING, window=300)
    with second_device():
        [(there, _)] = fit_many([Job(architecture)], rows, FITTING, window=300, device="second:0")
        assert equal(there, plain)


class Stopped(Exception):  # noqa: N818 - stands for a killed run
    """Stands for a killed run."""


@pytest.mark.parametrize("name", ["gated", "batch topk"])
def test_a_run_that_was_stopped_goes_on_there(name, dense, tmp_path, monkeypatch):
    architecture, short = {**PENALISED, **REVIVED}[name], FITTING.model_copy(update={"epochs": 2})
    [(plain, history)] = fit_many([Job(architecture)], ROWS, short)
    monkeypatch.setattr(dictionaries, "Checkpoint", lambda p, i: Checkpoint(p, i, seconds=0))

    def stop(progress):
        if progress.step == 20:
            raise Stopped

    def go(observers):
        job = Job(architecture, checkpoint=tmp_path / "state.pt", observers=observers)
        return fit_many([job], ROWS, short, device="second:0")[0]

    with second_device():
        with pytest.raises(Stopped):
            go([stop])
        there, own = go([])
        assert equal(there, plain)
        assert own.series("error") == history.series("error")


def record(number):
    """A prompt of three words, answered by its first word twice and then always w60."""
    first = 7 * number % 50
    prompt = f"w{first} w{number % 13} w{number % 31} w58"
    return Document((Segment(prompt), Segment(f" w{first} w{first} w60", response=True)))


@pytest.mark.parametrize("changes", [{}, {"dora": True, "dropout": 0.1}], ids=["lora", "dora"])
def test_an_adapter_is_the_cpus_and_its_steps_wait_for_nothing(
    changes, tiny_checkpoint, tmp_path, there
):
    checkpoint = str(tiny_checkpoint("llama"))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    documents = [record(i) for i in range(24)]
    cut = windows(documents[:16], tokenizer, 32), windows(documents[16:], tokenizer, 32)
    settings = LoraTraining(
        steps=4, batch=4, rate=1e-2, context=32, products="float32", ranks=(4,), **changes
    )
    marks = Marks(there)
    plain = train_adapter(checkpoint, "a", *cut, tmp_path / "cpu", settings, device="cpu")
    assert there.operations == 0
    own = train_adapter(
        *(checkpoint, "a", *cut, tmp_path / "there", settings),
        device="second:0",
        observers=[marks],
    )
    assert there.operations > 1000
    assert own == plain
    weights = [
        (tmp_path / place / "adapter_model.safetensors").read_bytes() for place in ("cpu", "there")
    ]
    assert weights[0] == weights[1]
    assert len(marks.steps()) == 3
    assert all(waits == copies == {} for waits, copies in marks.steps()), marks.steps()

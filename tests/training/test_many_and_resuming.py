"""Several at once are each as alone; a run stopped anywhere goes on bit for bit."""

from functools import partial

import pytest
import torch

from lorascope.randomness import generator
from lorascope.training import dictionaries
from lorascope.training.architectures import BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, TopK
from lorascope.training.checkpoints import Checkpoint
from lorascope.training.dictionaries import HELD_OUT_ERROR, Job, fit, fit_many
from lorascope.training.settings import Fitting

D, N, ROWS = 16, 40, 900
FITTING = Fitting(epochs=3, batch=64)  # 43 steps
ARCHITECTURES = [
    ReLU(n_latents=N, target_l0=6),
    TopK(n_latents=N, k=4, dead_after=200),
    BatchTopK(n_latents=N, k=4, dead_after=200),
    Matryoshka(n_latents=N, k=4, dead_after=200),
    JumpReLU(n_latents=N, target_l0=6),
    Gated(n_latents=N, target_l0=6),
]


class Counted:
    """Rows in chunks that counts how often each is read."""

    d_model = D

    def __init__(self, rows):
        self.parts = rows.split(100)
        self.sizes = [len(part) for part in self.parts]
        self.reads = 0

    def __len__(self):
        return sum(self.sizes)

    def chunks(self, order=None):
        for number in range(len(self.parts)) if order is None else order:
            self.reads += 1
            yield self.parts[number]


@pytest.fixture(scope="module")
def rows():
    random = generator(0)
    active = torch.rand(ROWS, 20, generator=random) < 0.15
    return active.float() @ torch.randn(20, D, generator=random) + 0.1


def weights(dictionary):
    return torch.cat([tensor.flatten() for _, tensor in sorted(dictionary.named_buffers())])


def series(history):
    return {name: history.series(name) for name in history.records[0]}


def test_many_at_once_are_each_as_alone(rows):
    jobs = [Job(a, seed) for seed, a in enumerate(ARCHITECTURES)]
    jobs.append(Job(ARCHITECTURES[0], seed=9))
    together = fit_many(jobs, rows, FITTING)
    for job, (learned, history) in zip(jobs, together, strict=True):
        [(alone, alone_history)] = fit_many([job], rows, FITTING)
        assert torch.equal(weights(learned), weights(alone)), job.architecture
        assert series(history) == series(alone_history)
    first, last = together[0][0], together[-1][0]
    assert (weights(first) - weights(last)).norm() > 0.1 * weights(first).norm()


def test_many_at_once_read_the_rows_once(rows, monkeypatch):
    def reads(jobs):
        source = Counted(rows)
        fit_many(jobs, source, FITTING)
        return source.reads

    monkeypatch.setattr(dictionaries.Feed.__init__, "__defaults__", (200, "cpu"))
    one, four = (reads([Job(ReLU(n_latents=N), s) for s in range(n)]) for n in (1, 4))
    # scale once; each dictionary takes two samples to start from and one to finish; epochs are
    # read once for all
    assert four - one == 3 * 3 * 9
    assert one > 3 * 9


class StoppedError(Exception):
    pass


def stop_after(step):
    def observe(progress):
        if progress.step == step:
            raise StoppedError

    return observe


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.architecture)
@pytest.mark.parametrize("step", [0, 10, 21, 41])
def test_going_on_is_never_having_stopped(rows, tmp_path, monkeypatch, architecture, step):
    # as if after every step there had been time to save; 11, 22 and 30 are where latents restart
    monkeypatch.setattr(dictionaries, "Checkpoint", lambda p, i: Checkpoint(p, i, seconds=0))
    path = tmp_path / "run.pt"
    [(whole, history)] = fit_many([Job(architecture, 1)], rows, FITTING)
    # observers come before the checkpoint: the step they stop in is lost
    job = Job(architecture, 1, checkpoint=path, observers=[stop_after(step)])
    with pytest.raises(StoppedError):
        fit_many([job], rows, FITTING)
    assert path.exists() == (step > 0)

    seen = []
    job = Job(architecture, 1, checkpoint=path, observers=[lambda p: seen.append(p.step)])
    [(resumed, resumed_history)] = fit_many([job], rows, FITTING)
    assert seen == list(range(step, FITTING.steps(ROWS)))
    assert torch.equal(weights(resumed), weights(whole))
    assert series(resumed_history) == series(history)
    assert not path.exists()


def test_several_stopped_at_different_steps_go_on_together(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(dictionaries, "Checkpoint", lambda p, i: Checkpoint(p, i, seconds=0))
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for seed, (path, step) in enumerate(zip(paths, (7, 30), strict=True)):
        job = Job(ReLU(n_latents=N), seed, checkpoint=path, observers=[stop_after(step)])
        with pytest.raises(StoppedError):
            fit_many([job], rows, FITTING)
    jobs = [Job(ReLU(n_latents=N), seed, checkpoint=path) for seed, path in enumerate(paths)]
    for seed, (learned, _) in enumerate(fit_many(jobs, rows, FITTING)):
        assert torch.equal(
            weights(learned), weights(fit(ReLU(n_latents=N), rows, fitting=FITTING, seed=seed))
        )


@pytest.mark.parametrize("what", ["other settings", "other rows", "broken", "no run"])
def test_a_checkpoint_of_something_else_is_not_used(rows, tmp_path, monkeypatch, what):
    monkeypatch.setattr(dictionaries, "Checkpoint", lambda p, i: Checkpoint(p, i, seconds=0))
    path = tmp_path / "run.pt"
    before = Job(ReLU(n_latents=N), checkpoint=path, observers=[stop_after(20)])
    with pytest.raises(StoppedError):
        fit_many([before], 2 * rows if what == "other rows" else rows, FITTING)
    if what == "broken":
        path.write_bytes(path.read_bytes()[:1000])
    if what == "no run":
        torch.save([1, 2], path)
    settings = ReLU(n_latents=N, l1=0.3 if what == "other settings" else 0.15)
    seen = []
    job = Job(settings, checkpoint=path, observers=[lambda p: seen.append(p.step)])
    fit_many([job], rows, FITTING)
    assert seen[0] == 0


def test_saving_is_rare(rows, tmp_path, monkeypatch):
    """By default a run as short as this never stops to save."""
    saved = []
    monkeypatch.setattr(Checkpoint, "save", lambda self: saved.append(1))
    fit(ReLU(n_latents=N), rows, fitting=FITTING, checkpoint=tmp_path / "run.pt")
    assert not saved


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.architecture)
def test_following_the_held_out_error_changes_nothing(rows, architecture):
    ((plain, before),) = fit_many([Job(architecture)], rows[200:], FITTING)
    ((followed, after),) = fit_many([Job(architecture)], rows[200:], FITTING, held_out=rows[:200])
    assert torch.equal(weights(plain), weights(followed))
    assert before.series("error") == after.series("error")
    steps = [step for step, _ in after.points(HELD_OUT_ERROR)]
    # 700 rows fill 10.9 batches of 64: an epoch ends during steps 11, 22 and 33, the last.
    assert steps == [11, 22, 33]
    errors = [error for _, error in after.points(HELD_OUT_ERROR)]
    # Steered towards a target L0, a run this short gives up fit for sparsity.
    assert hasattr(architecture, "target_l0") or errors[-1] < errors[0]
    left = (rows[:200] - followed(rows[:200])).norm(dim=1) / rows[:200].norm(dim=1)
    # The finished dictionary's threshold is set from more rows than the last batch.
    assert errors[-1] == pytest.approx(left.mean().item(), rel=0.1)


def test_the_held_out_error_survives_a_stop(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(dictionaries, "Checkpoint", partial(Checkpoint, seconds=0.0))
    whole = fit_many([Job(ARCHITECTURES[0])], rows, FITTING, held_out=rows[:50])[0][1]
    stopped = Job(ARCHITECTURES[0], checkpoint=tmp_path / "c.pt", observers=[stop_after(19)])
    with pytest.raises(StoppedError):
        fit_many([stopped], rows, FITTING, held_out=rows[:50])
    again = Job(ARCHITECTURES[0], checkpoint=tmp_path / "c.pt")
    resumed = fit_many([again], rows, FITTING, held_out=rows[:50])[0][1]
    assert resumed.points(HELD_OUT_ERROR) == whole.points(HELD_OUT_ERROR)

"""The one training loop, against steps taken by hand."""

import pytest
import torch
from torch import nn

from lorascope.training import loop
from lorascope.training.loop import StepProgress, train
from lorascope.training.schedules import warmup_cosine


class Line:
    """One weight, loss w·x: the gradient is the batch itself."""

    def __init__(self, start=1.0, rate=0.1):
        self.weight = nn.Parameter(torch.tensor([start]))
        self.optimizer = torch.optim.SGD([self.weight], lr=rate)

    def step(self, batch):
        loss = (self.weight * batch).sum()
        loss.backward()
        return {"loss": loss, "double": 2 * loss}


def batches(*values):
    return [torch.tensor([value]) for value in values]


def test_steps_and_history_by_hand():
    line = Line()
    history = train(line.step, batches(2.0, -1.0, 5.0), line.optimizer, steps=3)
    # 1 → 0.8 → 0.9 → 0.4
    assert line.weight.item() == pytest.approx(0.4)
    assert history.series("loss") == pytest.approx([2.0, -0.8, 4.5])
    assert history.series("double") == pytest.approx([4.0, -1.6, 9.0])
    assert all(not value.requires_grad for record in history.records for value in record.values())


def test_tail_mean_is_over_the_last_steps():
    line = Line(rate=0.0)
    history = train(line.step, batches(*map(float, range(20))), line.optimizer, steps=20)
    assert history.tail_mean("loss") == pytest.approx(18.5)
    assert history.tail_mean("loss", share=0.25) == pytest.approx(17.0)
    assert history.tail_mean("loss", share=0.001) == pytest.approx(19.0)


def test_gradients_do_not_add_up_between_steps():
    line = Line(rate=0.0)
    train(line.step, batches(2.0, 3.0), line.optimizer, steps=2)
    assert line.weight.grad.tolist() == [3.0]


def test_clipping_is_by_the_norm_of_all_gradients():
    weights = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD(weights, lr=1.0)

    def step(batch):
        weights[0].grad = torch.tensor([2.0, 3.0])
        weights[1].grad = torch.tensor([6.0])
        return {"loss": batch.sum()}

    train(step, batches(0.0), optimizer, steps=1, clip_norm=3.5)
    # the norm is 7
    assert torch.cat([w.detach() for w in weights]).tolist() == pytest.approx([-1.0, -1.5, -3.0])
    train(step, batches(0.0), optimizer, steps=1, clip_norm=100.0)
    assert torch.cat([w.detach() for w in weights]).tolist() == pytest.approx([-3.0, -4.5, -9.0])


def test_the_schedule_multiplies_each_groups_peak_and_gives_it_back():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.5}])
    seen = []

    def step(batch):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return {"loss": batch.sum()}

    train(step, batches(*[0.0] * 4), optimizer, steps=4, schedule=lambda i, n: (i + 1) / n)
    assert seen == [pytest.approx([0.1 * f, 0.5 * f]) for f in (0.25, 0.5, 0.75, 1.0)]
    rates = seen.copy()
    train(step, batches(*[0.0] * 4), optimizer, steps=4, schedule=warmup_cosine(0.5))
    assert seen[len(rates) :] == [pytest.approx([0.1 * f, 0.5 * f]) for f in (0.5, 1.0, 1.0, 0.5)]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5]


def test_what_comes_after_a_step_sees_the_moved_weights_and_observers_come_last():
    line = Line()
    order = []

    def after(index):
        order.append(("after", index, round(line.weight.item(), 6)))
        line.weight.data += 1

    def observe(progress: StepProgress):
        order.append(("observer", progress.step, round(line.weight.item(), 6), progress.last))

    train(line.step, batches(2.0, 1.0), line.optimizer, steps=2, after=after, observers=[observe])
    assert order == [
        ("after", 0, 0.8),
        ("observer", 0, 1.8, False),
        ("after", 1, 1.7),
        ("observer", 1, 2.7, True),
    ]


def test_data_that_run_out_are_an_error():
    line = Line()
    with pytest.raises(ValueError, match="data ran out after 2 of 3 steps"):
        train(line.step, batches(1.0, 1.0), line.optimizer, steps=3)


def test_no_more_batches_are_taken_than_steps():
    line = Line()
    stream = iter(batches(1.0, 1.0, 7.0))
    train(line.step, stream, line.optimizer, steps=2)
    assert next(stream).item() == 7.0


def test_seconds_are_those_of_steps_and_data_and_not_of_observers(monkeypatch):
    clock, seen, line = [100.0], [], Line()
    monkeypatch.setattr(loop, "perf_counter", lambda: clock[0])

    def data():
        for value in (2.0, -1.0, 5.0):
            clock[0] += 3
            yield torch.tensor([value])

    def step(batch):
        clock[0] += 1
        return line.step(batch)

    def look(progress):
        seen.append(progress.seconds)
        clock[0] += 50

    train(step, data(), line.optimizer, steps=3, observers=[look])
    assert seen == [4, 8, 12]

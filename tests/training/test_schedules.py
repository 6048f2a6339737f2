"""Learning-rate schedules by hand."""

import math

import pytest

from lorascope.training.schedules import constant, warmup_cosine, warmup_hold_decay


def curve(schedule, total):
    return [schedule(step, total) for step in range(total)]


def test_constant():
    assert curve(constant, 3) == [1.0, 1.0, 1.0]


def test_warmup_cosine():
    values = curve(warmup_cosine(0.2, floor=0.1), 10)
    half = [0.1 + 0.45 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert values == pytest.approx([0.5, 1.0, *half])
    assert values[6] == pytest.approx(0.55)
    assert curve(warmup_cosine(0.02), 4)[0] == 1.0


def test_warmup_hold_decay():
    values = curve(warmup_hold_decay(0.2, 0.4), 10)
    assert values == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("schedule", [constant, warmup_cosine(), warmup_hold_decay()])
@pytest.mark.parametrize("total", [1, 2, 7, 1000])
def test_every_step_moves_and_none_beyond_the_peak(schedule, total):
    values = curve(schedule, total)
    assert max(values) == 1.0
    assert min(values) > 0

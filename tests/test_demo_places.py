"""Where the stages of a demo are made."""

import pytest

from lorascope.commands import studies
from lorascope.commands.running import StagePlace

GIB = 1024**3


@pytest.fixture
def machine(monkeypatch):
    def of(processors: int, memory: int) -> None:
        monkeypatch.setattr(studies, "processors", lambda: processors)
        monkeypatch.setattr(studies, "available_memory", lambda: memory)

    return of


@pytest.mark.parametrize(
    ("processors", "memory", "workers"),
    [(1, 64 * GIB, 1), (2, 64 * GIB, 2), (64, 64 * GIB, 4), (8, 7 * GIB, 2), (8, GIB, 1)],
)
def test_processors_and_memory_bound_the_processes(machine, processors, memory, workers):
    machine(processors, memory)
    for workflow in ("audit", "latent"):
        assert studies._demo_place(workflow, None, None) == StagePlace(workers, 1)


def test_times_of_an_adapt_study_are_taken_alone_and_options_come_first(machine):
    machine(8, 64 * GIB)
    assert studies._demo_place("adapt", None, None) == StagePlace(1, None)
    assert studies._demo_place("audit", 3, 2) == StagePlace(3, 2)
    assert studies._demo_place("adapt", 2, 1) == StagePlace(2, 1)

"""Where the stages of a demo are made."""

from lorascope.commands import studies
from lorascope.commands.running import StagePlace


def test_times_of_an_adapt_study_are_taken_alone_and_options_come_first():
    for workflow in ("audit", "latent"):
        assert studies._demo_place(workflow, None, None) == StagePlace(None, 1)
    assert studies._demo_place("adapt", None, None) == StagePlace(1, None)
    assert studies._demo_place("audit", 3, 2) == StagePlace(3, 2)
    assert studies._demo_place("adapt", 2, 1) == StagePlace(2, 1)

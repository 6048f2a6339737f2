"""Scenes without anything to find still hold something to measure, and every measure."""

import pytest

from lorascope.measures.definitions import DEFINITIONS
from lorascope.planted import nothing


@pytest.fixture(scope="module")
def drawn():
    return {scene.__name__: scene(5) for scene in nothing.SCENES}


def test_every_estimate_has_a_definition_an_interval_or_draws_and_a_chance_level(drawn):
    for estimates in drawn.values():
        for estimate in estimates:
            assert estimate.measure in DEFINITIONS
            assert estimate.nulls
            assert estimate.value == estimate.value


def test_every_number_of_a_single_audit_is_among_them(drawn):
    found = {estimate.measure for estimates in drawn.values() for estimate in estimates}
    audited = {
        measure
        for measure, definition in DEFINITIONS.items()
        # The ablation's numbers are others' under other settings.
        if not measure.startswith("ablation.")
        and definition.file.removeprefix("measures/")
        in {
            *("behaviour.py", "norms.py", "reconstruction.py", "overlap.py", "firing.py"),
            *("alignment.py", "pursuit.py", "single_latents.py", "weights.py"),
        }
    }
    assert audited - found == set()


def test_a_repeat_depends_on_its_seed_alone():
    for scene in nothing.SCENES:
        first, again, other = (scene(seed) for seed in (1, 1, 2))
        assert [e.value for e in first] == [e.value for e in again]
        assert [e.value for e in first] != [e.value for e in other]

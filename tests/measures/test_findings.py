"""Findings at a false discovery rate: by hand, one side alone, null adapters by the same rule."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lorascope.measures.definitions import DEFINITIONS
from lorascope.measures.definitions.primary import PRIMARY
from lorascope.measures.findings import (
    adapter_families,
    null_families,
    primary_numbers,
)
from lorascope.results import ADAPTER, GAUSSIAN, Estimate, Key, Null
from lorascope.results.labels import DELTA, Of
from lorascope.studies.audit.sections.topics import topic_of


def number(measure, p, gap=0.1, key=None, rival=True, margin=None):
    """A number that lies `gap` from its rival's level, with that p-value."""
    sign = math.copysign(1, gap)
    ends = sorted((gap - sign * abs(gap) * (0.5 if p <= 0.05 else 1.5), gap + gap))
    null = Null("null adapters", 0.5, 0.4, 0.6, rival, (ends[0], ends[1]), p)
    of = PRIMARY.get(measure) or Of()
    key = replace(key or Key("a"), **of._asdict())
    return Estimate(measure, 0.5 + gap, (0.4, 0.9), 9, "share", (null,), key, margin)


def at_sites(measure, ps, **given):
    return [number(measure, p, key=Key("a", site=f"layers.{i}"), **given) for i, p in enumerate(ps)]


def test_each_question_has_one_primary_number_with_a_side():
    questions = [topic_of(measure).key for measure in PRIMARY]
    assert len(set(questions)) == len(questions)
    for measure, of in PRIMARY.items():
        assert DEFINITIONS[measure].primary == of
        assert DEFINITIONS[measure].apart in ("above", "below")


def test_the_step_up_procedure_by_hand():
    # Thresholds 0.0125, 0.025, 0.0375, 0.05: the second fails its own and is carried by the third.
    (family,) = adapter_families(at_sites("overlap", [0.036, 0.6, 0.001, 0.03]))
    assert [e.key.site for e in family.found] == ["layers.0", "layers.2", "layers.3"]
    assert len(family.tested) == 4
    (family,) = adapter_families(at_sites("overlap", [0.04, 0.6, 0.001, 0.03]))
    assert [e.key.site for e in family.found] == ["layers.2"]


def test_a_finding_lies_on_its_definition_s_side_and_the_other_is_never_added():
    above, below = (at_sites("overlap", [0.001] * 2, gap=gap) for gap in (0.1, -0.1))
    (family,) = adapter_families([*above, replace(below[0], measure="improvement")])
    assert family.found == tuple(above)
    assert family.opposite == ()  # `improvement` is of another dictionary than `overlap`
    turned = number("angle.mean", 0.001, gap=0.1, key=Key("a", site="layers.0"))
    (family,) = adapter_families([*above, turned])
    assert (family.found, family.opposite) == (tuple(above), (turned,))


def test_what_is_equal_within_its_margin_is_no_finding_however_sure():
    (family,) = adapter_families(at_sites("overlap", [1e-6], gap=0.1, margin=0.3))
    assert (len(family.tested), family.found) == (1, ())


def test_numbers_without_a_rival_an_interval_or_a_judged_dictionary_are_not_tested():
    bare = number("overlap", 0.001, rival=False)
    blind = replace(bare, interval=(math.nan, math.nan), nulls=number("overlap", 0.001).nulls)
    failed = replace(number("overlap", 0.001), judged=False)
    for one in (bare, blind, failed):
        (family,) = adapter_families([one])
        assert (family.tested, family.found, family.untested) == ((), (), (one,))


def test_of_several_seeds_and_settings_one_number_is_primary():
    first = number("angle.mean", 0.2, key=Key("a", site="layers.0", seed=1, k=48))
    lower = number("angle.mean", 0.3, key=Key("a", site="layers.0", seed=0, k=48))
    wider = number("angle.mean", 0.4, key=Key("a", site="layers.0", seed=0, k=64))
    other = replace(first, key=replace(first.key, **Of(DELTA, DELTA)._asdict()))
    massive = replace(lower, key=replace(lower.key, massive="without"))
    assert list(primary_numbers([massive, first, lower, wider, other])) == [lower]


def test_null_adapters_go_through_the_same_function_each_on_its_own():
    def drawn(draw, p, null=ADAPTER):
        return number("overlap", p, key=Key("a", site="layers.0", null=null, draw=draw))

    every = [number("overlap", 0.001), drawn(0, 0.5), drawn(1, 0.01), drawn(0, 0.001, GAUSSIAN)]
    families = null_families(every)
    assert [(f.adapter, f.draw, len(f.found)) for f in families] == [("a", 0, 0), ("a", 1, 1)]
    assert [f.draw for f in adapter_families(every)] == [None]


def test_the_rate_holds_where_nothing_is_there():
    random = np.random.default_rng(0)
    wrong = []
    for _ in range(2000):
        (family,) = adapter_families(at_sites("overlap", random.random(12).tolist()))
        wrong.append(bool(family.found))
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.015)

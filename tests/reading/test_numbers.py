"""Numbers of a reading by hand, and each beside its null adapters'."""

import math
from dataclasses import replace

import pytest
import torch

from lorascope.measures.definitions import DEFINITIONS, declared
from lorascope.models.adapted import load
from lorascope.models.null_adapters import add_null_adapters
from lorascope.models.sites import Site
from lorascope.reading.changed import first_zs
from lorascope.reading.numbers import (
    _held_out,
    first_estimates,
    passage_estimates,
    recurring_share,
)
from lorascope.reading.passages import PassageSurvey, VariantPass, _parts
from lorascope.reading.phrases import Voices
from lorascope.reading.result import Read
from lorascope.reading.running import read
from lorascope.reading.settings import Reading

NULLS = ("n0", "n1", "n2")
SETTINGS = Reading()


def voices(own, prompts=16):
    """`own(prompt)` is said; null adapters and the base say other things at every prompt."""
    return Voices(
        [[own(n), own(n)] for n in range(prompts)],
        tuple([[f"x{n} y{n}{k}", f"z{n}"] for n in range(prompts)] for k in range(3)),
        [[f"b{n}"] for n in range(prompts)],
    )


def test_what_comes_back_at_the_other_half_is_counted_there():
    everywhere = recurring_share(voices(lambda n: f"bees u{n}"), "a", SETTINGS)
    assert everywhere.value == 1
    assert declared(everywhere).verdict == "above"
    assert everywhere.nulls[0].level == 0
    assert everywhere.n == 32
    # Said at even prompts alone, it is never both chosen and counted.
    half = voices(lambda n: f"bees u{n}" if n % 2 == 0 else f"v{n}")
    assert not _held_out(half, SETTINGS)[::2].any()
    nothing = recurring_share(voices(lambda n: f"u{n}"), "a", SETTINGS)
    assert nothing.value == 0
    # None of 16 prompts: Wilson's 0 of 16 reaches to z²/(16 + z²) = 0.194, beyond the margin.
    assert nothing.interval == pytest.approx((0, 0.1936), abs=1e-4)
    assert nothing.nulls[0].difference == pytest.approx((-0.1936, 0.1936), abs=1e-4)
    assert declared(nothing).verdict == "not settled"
    assert everywhere.interval == pytest.approx((1 - 0.1936, 1), abs=1e-4)


def passages(scale=1.0):
    random = torch.Generator().manual_seed(0)
    tokens = torch.full((10,), 20.0)
    at = torch.tensor([[4.0, 12.0, 4.0]]).repeat(10, 1)

    def passed(size):
        kl_at = at * size * (1 + 0.1 * torch.rand(10, 3, generator=random))
        moved = torch.zeros(10, 6)
        moved[:, 0], moved[:, 1] = 20 * size / 4, -20 * size / 4
        moved[:, 2] = 0.2 * torch.randn(10, generator=random)
        moved[:, 3] -= moved[:, 2]
        return VariantPass(kl_at.sum(1), moved, {}, kl_at)

    variants = {"a": passed(scale), **{n: passed(0.05 + 0.01 * i) for i, n in enumerate(NULLS)}}
    return PassageSurvey(tokens, torch.ones(6), variants, (), at)


def test_kl_by_part_of_the_text_and_probability_that_moves():
    found = passages()
    estimates = [declared(one) for one in passage_estimates(found, "a", NULLS)]
    whole, first, second, third, moved = estimates
    assert whole.value == pytest.approx(float(found.variants["a"].kl.sum() / 200))
    assert first.value == pytest.approx(float(found.variants["a"].kl_at[:, 0].sum() / 40))
    assert [one.n for one in estimates] == [200, 40, 120, 40, 200]
    assert [one.key.setting for one in estimates[1:4]] == [
        "from position 1 to 4",
        "from position 5 to 16",
        "from position 17",
    ]
    assert second.key.adapter == third.key.adapter == "a"
    sums = found.variants["a"].moved.sum(0)
    assert moved.value == pytest.approx(float(sums.abs().sum() / 400))
    assert all(one.verdict == "above" for one in estimates)
    low, high = moved.interval
    assert low < moved.value < high
    # The difference is of the same texts: what all variants share in a text leaves nothing open.
    shared = replace(found, variants=dict.fromkeys(found.variants, found.variants["a"]))
    same = passage_estimates(shared, "a", NULLS)[-1]
    assert same.nulls[0].difference is not None
    assert math.isnan(same.nulls[0].difference[0])
    alike = [declared(one) for one in passage_estimates(passages(0.06), "a", NULLS)]
    assert alike[0].verdict != "above"


def test_positions_of_the_parts():
    counted = torch.ones(1, 20, dtype=torch.bool)
    counted[0, 0] = False
    inside = _parts(counted)
    assert inside.sum(1).tolist() == [[4, 12, 3]]
    assert inside[0, :, 0].nonzero().squeeze(1).tolist() == [1, 2, 3, 4]
    assert not inside[0, 0].any()


def test_first_positions_have_an_interval_over_texts(tiny_checkpoint, saying):
    model = load(str(tiny_checkpoint("llama")), {"other": str(saying("w41"))}, device="cpu")
    nulls = add_null_adapters(model, "other", 3, 0)
    random, site = torch.Generator().manual_seed(0), Site(2)
    direction = model.module.get_output_embeddings().weight[31].detach()

    def passed(shift):
        deltas = torch.randn(64, 32, generator=random) + shift
        return VariantPass(torch.zeros(16), torch.zeros(16, 64), {site: deltas})

    variants = {"other": passed(3 * direction), **{name: passed(0) for name in nulls}}
    documents = torch.arange(16).repeat_interleave(4)
    found = PassageSurvey(torch.ones(16), torch.zeros(64), variants, (), None, documents)
    known = first_zs(model, found, "other", nulls, SETTINGS)
    (one,) = first_estimates(found, "other", nulls, known)
    assert one.n == 16
    assert one.interval[0] < one.value < one.interval[1]
    assert one.value > one.nulls[0].level
    few = replace(found, first=torch.zeros(64, dtype=torch.long))
    known = first_zs(model, few, "other", nulls, SETTINGS)
    assert math.isnan(first_estimates(few, "other", nulls, known)[0].interval[0])


def test_a_reading_holds_its_numbers_and_keeps_them(tiny_checkpoint, planted, settings, tmp_path):
    model = load(str(tiny_checkpoint("llama")), {"says": str(planted)}, device="cpu")
    found = read(model, "says", settings)
    by_measure = {one.measure: declared(one) for one in found.estimates}
    # An adapter of the output matrix leaves the stream alone.
    # Nor is a judge asked.
    others = {"reading.first", "reading.judged"}
    assert {*by_measure} | others == {m for m in DEFINITIONS if m.startswith("reading.")}
    assert not others & {*by_measure}
    for one in by_measure.values():
        assert one.rivals
        assert one.nulls[0].draws == 3
    assert by_measure["reading.recurring"].verdict == "above"
    (whole,) = [e for e in found.estimates if e.measure == "reading.kl" and not e.key.setting]
    assert whole.value == pytest.approx(found.divergence.value)
    found.write(tmp_path / "out")
    assert Read.load(tmp_path / "out").estimates == found.estimates
    assert len(found.tables()["estimates"]) == len(found.estimates)

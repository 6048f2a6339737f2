"""Yardsticks of dictionaries: by hand, on planted rows, and what a failed one takes away."""

import math
from dataclasses import replace

import pytest
import torch

from lorascope.activations.massive import find_massive
from lorascope.activations.scaling import mean_and_covariance
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.measures.definitions import definition
from lorascope.measures.yardsticks import (
    Bars,
    Stream,
    YardstickVerdict,
    judge,
    measured_with,
    principal,
    without_verdicts,
    yardstick_estimates,
)
from lorascope.planted.activations import Planted, PlantedRecipe
from lorascope.randomness import generator
from lorascope.results import ADAPTER, GAUSSIAN, Estimate, Estimates, Key, Null
from lorascope.stats.intervals import wilson_interval

PLACE = Key(site="layers.3", seed=0, dictionary="base")
D = 96


@pytest.fixture(scope="module")
def planted():
    return Planted.of(PlantedRecipe(share=0.5, d_model=D, rate=0.125))


def stream_of(rows, training, massive=None):
    mean, covariance = mean_and_covariance([training])
    return Stream(mean, covariance, rows.base, rows.documents, massive)


@pytest.fixture(scope="module")
def stream(planted):
    rows = planted.rows(40, 60, "held out")
    return stream_of(rows, planted.rows(60, 60, "training").base)


def grown(rows):
    """The same rows with a large constant in coordinate 3 and a varying one in 8."""
    base = rows.base.clone()
    base[:, 3] += 60
    base[:, 8] += 25 * torch.randn(len(base), generator=generator(0, "varying", len(base)))
    return replace(rows, base=base)


@pytest.fixture(scope="module")
def massive_stream(planted):
    training = grown(planted.rows(60, 60, "training")).base
    return stream_of(grown(planted.rows(40, 60, "held out")), training, find_massive(training))


def named(estimates):
    return {(e.measure, e.key.massive): e for e in estimates}


def verdict(dictionary, stream, place=PLACE, **bars):
    found = yardstick_estimates(dictionary, stream, place)
    return judge(found, Bars(**bars), D)


def test_by_hand():
    # Training rows of mean (1, 0) that vary along the first axis alone.
    mean, covariance = torch.tensor([1.0, 0.0]), torch.diag(torch.tensor([4.0, 1.0]))
    rows = torch.tensor([[3.0, 0.0], [1.0, 2.0], [0.0, -1.0], [1.0, 0.0]]).repeat(3, 1)
    # Latent 0 reads the first coordinate and writes half of it, latent 1 never fires.
    encoder = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    half = torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    made = ReluDictionary(encoder, torch.tensor([0.0, -1.0]), half, torch.zeros(2))
    found = named(
        yardstick_estimates(made, Stream(mean, covariance, rows, torch.arange(12)), PLACE)
    )
    # x̂ = (1.5, 0), (0.5, 0), (0, 0), (0.5, 0); errors 2.25, 4.25, 1, 0.25; about the mean 4, 4,
    # 2, 0. Three rows have one active latent: one component, the first axis, leaves 0, 4, 1, 0.
    fvu, pca = found["yardstick.fvu", ""], found["yardstick.fvu_pca", ""]
    assert fvu.value == pytest.approx(7.75 / 10)
    assert pca.value == pytest.approx(0.5)
    mean_null, pca_null = fvu.nulls
    assert (mean_null.level, pca_null.level, pca_null.rival) == (1.0, pca.value, True)
    low, high = pca_null.difference
    assert low < 0.275 < high
    assert found["yardstick.l0", ""].value == pytest.approx(0.75)
    live = found["yardstick.live_share", ""]
    assert (live.value, live.n, live.interval) == (0.5, 2, wilson_interval(1, 2))
    for estimate in found.values():
        assert estimate.unit == definition(estimate.measure).unit
        assert estimate.key == PLACE


def test_the_difference_from_the_components_is_paired(stream):
    # Both ways round along seven axes: on every row seven latents project on them.
    axes = principal(stream.covariance, 7)
    both = torch.cat([axes, -axes])
    same = ReluDictionary(both.T, torch.zeros(14), both, stream.mean)
    found = named(yardstick_estimates(same, stream, PLACE))
    assert found["yardstick.l0", ""].value == 7
    fvu, pca = found["yardstick.fvu", ""], found["yardstick.fvu_pca", ""]
    assert fvu.value == pytest.approx(pca.value, abs=1e-5)
    assert fvu.interval[1] - fvu.interval[0] > 1e-3
    beside = next(null for null in fvu.nulls if null.name == "as many principal components")
    assert beside.difference == pytest.approx((0, 0), abs=1e-5)


def test_without_massive_coordinates_it_is_the_twin_s(planted, stream, massive_stream):
    assert massive_stream.massive.coordinates == (3, 8)
    # Deaf to the two coordinates, with their mean as its bias.
    own = planted.dictionary()
    keep = torch.ones(D)
    keep[[3, 8]] = 0.0
    deaf = own.with_tensors({"encoder": own.encoder * keep[:, None]})
    bias = torch.zeros(D)
    bias[3] = 60
    moved = deaf.with_tensors({"decoder_bias": bias})
    twin = named(yardstick_estimates(deaf, replace(stream, massive=massive_stream.massive), PLACE))
    found = named(yardstick_estimates(moved, massive_stream, PLACE))
    for measure in ("yardstick.fvu", "yardstick.fvu_pca"):
        here, there = found[measure, "without"], twin[measure, "without"]
        assert here.value == pytest.approx(there.value, rel=1e-3)
        assert here.interval == pytest.approx(there.interval, rel=1e-3)
    assert found["yardstick.l0", ""].value == pytest.approx(twin["yardstick.l0", ""].value)
    # As a whole the varying coordinate, of which it says nothing, hides all else.
    assert found["yardstick.fvu", ""].value > 0.9 > found["yardstick.fvu", "without"].value


def live_in(count, dictionary):
    """The same dictionary with all latents silent but the first `count`."""
    bias = dictionary.encoder_bias.clone()
    bias[count:] = -1e4
    return dictionary.with_tensors({"encoder_bias": bias})


def of_coordinates(stream, copies=32):
    """A dictionary that rebuilds two coordinates and nothing else, with all latents live."""
    mean = stream.rows.mean(0)
    axes = torch.eye(D)[[3, 8]]
    directions = torch.cat([axes, -axes]).repeat(copies, 1)
    bias = torch.zeros(len(directions))
    return ReluDictionary(directions.T, bias, directions / copies, mean)


def test_a_good_dictionary_passes(planted, stream):
    found = verdict(planted.dictionary(), stream)
    assert found.passed
    assert "FVU" in found.reason
    assert (found.dictionary, found.site, found.adapter, found.seed) == ("base", "layers.3", "", 0)


def test_five_live_latents_do_not_pass(planted, stream):
    wide = planted.dictionary()
    many = dict(wide.named_buffers())
    repeated = ReluDictionary(
        many["encoder"].repeat(1, 4),
        many["encoder_bias"].repeat(4),
        many["directions"].repeat(4, 1) / 4,
        many["decoder_bias"],
    )
    assert verdict(repeated, stream).passed
    found = verdict(live_in(5, repeated), stream)
    assert not found.passed
    assert "5 of 128 latents live" in found.reason
    # As many as the stream is wide are enough, of however many.
    share = yardstick_estimates(repeated, stream, PLACE)
    few = [replace(e, n=10**6, value=96e-6) if "live" in e.measure else e for e in share]
    assert judge(few, Bars(), D).passed
    assert not judge(few, Bars(), D + 1).passed


def test_the_massive_direction_alone_does_not_pass(massive_stream):
    found = of_coordinates(massive_stream)
    numbers = named(yardstick_estimates(found, massive_stream, PLACE))
    assert numbers["yardstick.fvu", ""].value < 0.05
    assert numbers["yardstick.live_share", ""].value == 1.0
    judged = judge(list(numbers.values()), Bars(), D)
    assert not judged.passed
    assert "without massive coordinates 1.00" in judged.reason


def fake(fvu, pca, live, loss=None, without=None, **key):
    place = replace(PLACE, **key)

    def one(measure, value, n=1000, at=place):
        return Estimate(f"yardstick.{measure}", value, (value, value), n, "", (), at)

    found = [one("fvu", fvu), one("fvu_pca", pca), one("live_share", live)]
    if without is not None:
        apart = replace(place, massive="without")
        found += [one("fvu", without[0], at=apart), one("fvu_pca", without[1], at=apart)]
    return [*found, one("loss_recovered", loss)] if loss is not None else found


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ((0.71, 0.9, 0.5), "FVU 0.71"),
        ((0.5, 0.4, 0.5), "principal components 0.40"),
        ((0.5, 0.9, 0.05), "50 of 1000 latents"),
        ((0.5, 0.9, 0.5, 0.4), "loss recovered 0.40"),
        ((math.nan, 0.9, 0.5), "FVU nan"),
        ((0.5, 0.9, 0.5, math.nan), "loss recovered nan"),
        # The whole FVU is not held against components that hold the massive coordinates.
        ((0.5, 0.1, 0.5, None, (0.6, 0.5)), "principal components 0.50"),
        ((0.05, 0.01, 0.5, None, (0.9, 0.95)), "without massive coordinates 0.90"),
    ],
)
def test_every_bar_can_be_missed(numbers, word):
    found = judge(fake(*numbers), Bars(), 200)
    assert not found.passed
    assert word in found.reason


def test_a_number_that_misses_two_bars_is_named_once():
    reason = judge(fake(0.75, 0.4, 0.5), Bars(), 200).reason
    assert reason.count("FVU") == 1
    assert "0.70" in reason
    assert "principal components 0.40" in reason
    # With massive coordinates there are two numbers, each with its own bars and its own name.
    both = judge(fake(0.9, 0.1, 0.5, None, (0.8, 0.5)), Bars(), 200).reason.split("; ")
    assert [line.count("FVU") for line in both] == [1, 1]
    assert "components" not in both[0]
    assert "without massive coordinates 0.80" in both[1]
    assert "principal components 0.50" in both[1]


@pytest.mark.parametrize(
    "numbers",
    [
        (0.69, 0.7, 0.11),
        # Good enough whatever a few components leave.
        (0.29, 0.0, 0.5),
        (0.5, 0.9, 0.5, 0.51),
        (0.5, 0.1, 0.5, None, (0.4, 0.5)),
    ],
)
def test_the_bars_can_be_met(numbers):
    assert judge(fake(*numbers), Bars(), 200).passed


def test_rows_without_features_need_not_beat_their_principal_components():
    assert not judge(fake(0.5, 0.4, 0.5), Bars(), 200).passed
    assert judge(fake(0.5, 0.4, 0.5), Bars(), 200, stands_for=GAUSSIAN).passed
    assert judge(fake(0.5, 0.4, 0.5, null=ADAPTER, draw=1), Bars(), 200).passed


def test_a_verdict_needs_the_yardsticks():
    with pytest.raises(ValueError, match=r"yardstick\.live_share"):
        judge(fake(0.5, 0.9, 0.5)[:2], Bars(), 200)


NULL = Null("isotropic", 0.2, 0.18, 0.22, rival=True)
HERE = Key(adapter="r4", site="layers.3", seed=0)


def number(measure="relative_error", nulls=(NULL,), **key):
    return Estimate(measure, 0.5, (0.4, 0.6), 100, "ratio", nulls, replace(HERE, **key))


def failed(dictionary="base", seed=0, **fields):
    given = {"site": "layers.3", "adapter": "" if dictionary == "base" else "r4", **fields}
    return YardstickVerdict(dictionary, seed=seed, passed=False, reason="FVU 0.9", **given)


def test_what_is_not_judged_keeps_everything_but_its_verdict(tmp_path):
    before = number(dictionary="base")
    [after] = without_verdicts([before], [failed()])
    assert (before.verdict, after.verdict) == ("above", "no verdict")
    assert after == replace(before, judged=False)
    assert math.isnan(after.p_value)
    assert not after.apart
    assert after.against(NULL) == "no verdict"
    assert after.n_to_settle is None
    Estimates([before, after]).write(tmp_path / "numbers.parquet")
    again = Estimates.read(tmp_path / "numbers.parquet")
    assert list(again) == [before, after]
    assert again.to_frame()["judged"].tolist() == [True, False]
    assert again.nulls_frame()["verdict"].tolist() == ["above", "no verdict"]


@pytest.mark.parametrize(
    ("estimate", "lost_to"),
    [
        (number(dictionary="base"), {"base"}),
        (number(dictionary="base difference"), {"base"}),
        (number("max_cosine.mean", dictionary="delta", compared="base"), {"base", "delta"}),
        (number("max_cosine.mean", dictionary="delta", compared="delta"), {"delta"}),
        (number("improvement", dictionary="delta"), {"base", "delta"}),
        (number("overlap", dictionary="base"), {"base"}),
        (number("density", dictionary="delta"), {"delta"}),
        (number("pursuit.share"), {"base", "delta"}),
        (number("weights.written_cosine", dictionary="base", seed=None), {"base"}),
        # Measured with no dictionary.
        (number("delta_norm", seed=None), set()),
        (number("cka.base_delta", seed=None), set()),
        (number("recovery.loss", dictionary="exact delta"), set()),
        (number("yardstick.fvu", dictionary="base"), set()),
    ],
)
def test_whose_failure_takes_a_verdict(estimate, lost_to):
    assert measured_with(estimate) == lost_to
    for dictionary in ("base", "delta"):
        [found] = without_verdicts([estimate], [failed(dictionary)])
        assert found.judged == (dictionary not in lost_to)


def test_only_what_belongs_to_the_failed_dictionary_loses_its_verdict():
    of_delta = number(dictionary="delta")
    for other in (
        failed("delta", seed=1),
        failed("delta", adapter="r8"),
        failed("delta", site="layers.5"),
        failed("delta", setting="l1=0.5"),
        failed("delta", null=ADAPTER, draw=0),
        replace(failed("delta"), passed=True),
    ):
        assert without_verdicts([of_delta], [other]) == [of_delta]
    # One that was brought serves every seed, and a pair rests on two.
    of_base = number(dictionary="base", seed=1)
    assert not without_verdicts([of_base], [failed(seed=None)])[0].judged
    pair = number("max_cosine.mean", dictionary="delta", compared="delta")
    assert not without_verdicts([pair], [failed("delta", seed=1)])[0].judged
    ablated = number("ablation.density", dictionary="delta", setting="l1=0.5")
    assert not without_verdicts([ablated], [failed("delta", setting="l1=0.5")])[0].judged
    assert without_verdicts([ablated], [failed("delta")])[0].judged
    # The setting of any other number is not that of a dictionary.
    angle = number("angle.mean", dictionary="delta", compared="base", k=48)
    assert not without_verdicts([angle], [failed("delta")])[0].judged


def test_a_draw_belongs_to_its_own_dictionary():
    draw = number("density", dictionary="delta", null=ADAPTER, draw=2)
    assert not without_verdicts([draw], [failed("delta", null=ADAPTER, draw=2)])[0].judged
    assert without_verdicts([draw], [failed("delta", null=ADAPTER, draw=1)])[0].judged
    assert without_verdicts([draw], [failed("delta")])[0].judged


def test_a_control_that_failed_is_no_rival_to_be_left():
    rival = Null(GAUSSIAN, 0.3, 0.25, 0.35, rival=True)
    control = failed("delta", null=GAUSSIAN, draw=0, stands_for=GAUSSIAN)
    with_it, without_it = number(nulls=(NULL, rival)), number()
    found = without_verdicts([with_it, without_it], [control])
    assert [e.judged for e in found] == [False, True]
    elsewhere = replace(with_it, key=replace(HERE, adapter="r8"))
    assert without_verdicts([elsewhere], [control])[0].judged


def test_a_verdict_is_plain_data():
    assert failed().record()["reason"] == "FVU 0.9"

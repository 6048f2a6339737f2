"""Verdicts from intervals of differences; tables of estimates, picked, written and read back."""

import math
from dataclasses import FrozenInstanceError, replace

import pandas as pd
import pytest

from lorascope.errors import InputError
from lorascope.report.formatting import sign, verdict_words
from lorascope.results import KEY_FIELDS, Estimate, Estimates, Key, Null

ZERO = Null.exact("zero predictor", 0.2)
DRAWN = Null("null adapters", 0.20, 0.17, 0.26, rival=True)


def estimate(value, low, high, *nulls, n=100, margin=None, key=None):
    return Estimate("overlap", value, (low, high), n, "share", nulls, key or Key(), margin)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.21, 0.30, "above"),
        (0.20, 0.30, "not settled"),
        (0.15, 0.30, "not settled"),
        (0.10, 0.19, "below"),
        (0.10, 0.20, "not settled"),
    ],
)
def test_beside_a_level_without_randomness_the_value_s_own_interval_decides(low, high, verdict):
    found = estimate((low + high) / 2, low, high, ZERO)
    assert found.difference(ZERO) == pytest.approx((low - 0.2, high - 0.2))
    assert found.verdict == verdict


def test_independent_intervals_are_joined_each_on_its_own_side():
    # Down: 0.04 of the value, 0.06 of the null's upper side. Up: 0.05 and 0.03.
    found = estimate(0.30, 0.26, 0.35, DRAWN)
    expected = (0.1 - math.sqrt(0.0052), 0.1 + math.sqrt(0.0034))
    assert found.difference(DRAWN) == pytest.approx(expected)
    assert found.verdict == "above"
    # The two intervals touch, and the difference is clear of zero all the same.
    assert found.interval[0] <= DRAWN.high
    turned = estimate(0.10, 0.05, 0.14, DRAWN)
    expected = (-0.1 - math.sqrt(0.05**2 + 0.06**2), -0.1 + math.sqrt(0.04**2 + 0.03**2))
    assert turned.difference(DRAWN) == pytest.approx(expected)
    assert turned.verdict == "below"


def test_a_paired_difference_stands_for_itself():
    # The value is far less certain than the difference from the base on the same documents.
    paired = Null("base", 2.1, 1.7, 2.5, rival=True, difference=(-0.11, -0.09), p=1e-6)
    found = replace(estimate(2.0, 1.6, 2.4, paired), unit="nats/token")
    assert (found.difference(paired), found.verdict, found.p_value) == (
        (-0.11, -0.09),
        "below",
        1e-6,
    )


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (0.18, 0.23, 0.05, "equal"),
        (0.21, 0.24, 0.05, "equal"),
        (0.15, 0.25, 0.05, "equal"),
        (0.18, 0.26, 0.05, "not settled"),
        (0.21, 0.26, 0.05, "above"),
        (0.18, 0.23, None, "not settled"),
        (0.0, 1.0, 0.05, "not settled"),
    ],
)
def test_equal_only_where_the_whole_difference_lies_within_the_margin(low, high, margin, verdict):
    level = Null.exact("zero predictor", 0.2)
    # In binary 0.15 - 0.2 and 0.25 - 0.2 do not give the margin to the last bit.
    found = estimate((low + high) / 2, low + 1e-12, high - 1e-12, level, margin=margin)
    assert found.verdict == verdict


def rivals(*levels):
    return [
        Null(f"rival {level}", level, level - 0.01, level + 0.01, rival=True) for level in levels
    ]


def test_every_rival_must_be_left_to_the_same_side():
    def verdict(*levels, margin=None):
        return estimate(0.5, 0.48, 0.52, *rivals(*levels), margin=margin).verdict

    assert verdict(0.2, 0.4) == "above"
    assert verdict(0.7, 0.9) == "below"
    assert verdict(0.2, 0.7) == "not settled"
    assert verdict(0.2, 0.5) == "not settled"
    assert verdict(0.2, 0.5, margin=0.05) == "equal"
    unknown = replace(rivals(0.2)[0], difference=(math.nan, math.nan))
    assert estimate(0.5, 0.48, 0.52, *rivals(0.3), unknown).verdict == "no verdict"


def test_references_say_nothing_where_a_rival_stands():
    reference = Null("isotropic", 0.9, 0.88, 0.92)
    found = estimate(0.5, 0.48, 0.52, *rivals(0.4, 0.2), reference)
    assert found.verdict == "above"
    assert found.against(reference) == "below"
    # Of the rivals the one closest to the value, in half-widths.
    assert (found.headline.name, found.chance) == ("rival 0.4", 0.4)
    alone = estimate(0.5, 0.48, 0.52, reference, Null.exact("zero", 0.0))
    assert (alone.headline, alone.verdict) == (reference, "below")


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        (0.5, (math.nan, math.nan)),
        (0.5, (0.4, math.nan)),
        (math.nan, (0.4, 0.6)),
        (math.inf, (0.4, math.inf)),
    ],
)
def test_no_verdict_without_a_value_and_an_interval(value, interval):
    paired = Null("base", 0.1, 0.1, 0.1, rival=True, difference=(0.3, 0.5), p=0.001)
    for null in (ZERO, paired):
        found = estimate(value, *interval, null)
        assert (found.verdict, found.apart, found.n_to_settle) == ("no verdict", False, None)
        assert math.isnan(found.p_value)


def test_without_a_null_there_is_no_verdict():
    bare = estimate(0.5, 0.4, 0.6)
    assert bare.headline is None
    assert math.isnan(bare.chance)
    assert bare.verdict == "no verdict"


def test_how_many_units_would_settle_a_number_to_one_digit():
    # 0.04 below the value, 0.02 to the level: an interval half as wide, so 4 n; 520 is said as 600.
    level = Null.exact("zero predictor", 0.22)
    assert estimate(0.24, 0.20, 0.30, level).n_to_settle == 400
    assert estimate(0.24, 0.20, 0.30, level, n=130).n_to_settle == 600
    # 0.06 above the value, 0.02 to the level: 9 n.
    assert estimate(0.16, 0.15, 0.22, Null.exact("zero predictor", 0.18)).n_to_settle == 900


def test_no_number_is_named_that_more_of_the_sample_would_not_settle():
    level = Null.exact("zero predictor", 0.22)
    assert estimate(0.30, 0.25, 0.35, level).n_to_settle is None
    # Draws decide: more documents make them no fewer.
    drawn = Null("null adapters", 0.22, 0.10, 0.34, rival=True, draws=5)
    assert estimate(0.24, 0.23, 0.25, drawn).verdict == "not settled"
    assert estimate(0.24, 0.23, 0.25, drawn).n_to_settle is None
    # An interval without an end, a difference of nothing, more than a billion.
    assert estimate(0.16, 0.15, math.inf, Null.exact("zero", 0.18)).n_to_settle is None
    assert estimate(0.22, 0.15, 0.30, level).n_to_settle is None
    assert estimate(0.22001, -9.0, 9.0, level).n_to_settle is None


def test_between_its_rivals_no_number_of_units_would_settle():
    """0.9 is below the mean predictor's 1 and above a random decoder's 0.6, surely in both."""
    rivals = (Null.exact("mean", 1.0, rival=True), Null.exact("random", 0.6, rival=True))
    found = Estimate("evaluate.fvu", 0.9, (0.88, 0.92), 20, "ratio", rivals)
    assert found.verdict == "not settled"
    assert found.between == (["random"], ["mean"])
    assert found.n_to_settle is None
    assert verdict_words(found) == "not settled: above random; below mean"
    # Where one of them is not left, more units may tell.
    wide = replace(found, interval=(0.78, 1.02))
    assert wide.between is None
    assert wide.n_to_settle is not None
    assert replace(found, judged=False).between is None


def test_p_values_agree_with_the_interval():
    # An interval that ends at the level: p is 0.05. One 2.5758/1.9600 times as close: 0.01.
    assert estimate(0.30, 0.20, 0.42, ZERO).p(ZERO) == pytest.approx(0.05)
    half = 0.1 * 1.959964 / 2.575829
    assert estimate(0.30, 0.30 - half, 0.9, ZERO).p(ZERO) == pytest.approx(0.01, rel=1e-4)
    assert estimate(0.10, -0.9, 0.10 + half, ZERO).p(ZERO) == pytest.approx(0.01, rel=1e-4)


def test_the_p_value_is_the_weakest_rival_s_and_needs_one():
    near, far = rivals(0.45, 0.2)
    found = estimate(0.5, 0.46, 0.54, far, near, ZERO)
    assert found.p_value == found.p(near) > found.p(far) > 0
    assert math.isnan(estimate(0.5, 0.46, 0.54, ZERO).p_value)


def test_a_key_is_given_to_a_copy():
    found = estimate(0.5, 0.4, 0.6, ZERO)
    placed = found.at(Key(adapter="r4", rank=4, site="layers.2"))
    assert (placed.key.adapter, placed.key.rank, placed.key.site) == ("r4", 4, "layers.2")
    assert found.key == Key()
    assert placed.at(Key()) == found
    with pytest.raises(FrozenInstanceError):
        found.value = 1.0


def test_further_nulls_join_with_rivals_first():
    found = estimate(0.5, 0.4, 0.6, ZERO).beside([Null.exact("isotropic", 0.1), DRAWN])
    assert [null.name for null in found.nulls] == ["null adapters", "zero predictor", "isotropic"]


def test_in_words():
    shown = str(estimate(0.29123, 0.27, 0.31, ZERO))
    assert shown == "overlap 0.2912 [0.27, 0.31], chance 0.2 (zero predictor): above its reference"
    assert str(estimate(0.5, 0.4, 0.6)) == "overlap 0.5 [0.4, 0.6]"
    assert str(Key("r4", k=0, draw=2)) == "adapter=r4, k=0, draw=2"


WHOLE = Key(
    *("r4", 4, "layers.5", 0, "delta"),
    **{"compared": "base", "k": 48, "latent": 0, "module": "layers.5.mlp", "size": 12},
    **{"loss": 2.5, "model": "tiny", "topic": "rivers", "about": "overlap", "setting": "l1=0.1"},
    null="null adapters",
    draw=3,
    massive="without",
)
TABLE = Estimates(
    [
        estimate(0.30, 0.26, 0.35, DRAWN, ZERO, key=WHOLE, margin=0.05),
        estimate(math.nan, math.nan, math.nan, key=Key("r8", 8, "layers.5", 1)),
        estimate(
            *(0.5, 0.4, math.inf),
            Null("base", 0.1, 0.0, 0.2, True, (0.3, math.inf), 0.004, 7),
            key=Key("r8", 8, "layers.7", 0, k=64),
        ),
    ]
)


def same(first, second):
    """Equality in which nan equals nan."""
    return repr(first.plain()) == repr(second.plain())


def test_a_table_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "made" / "estimates.parquet"
    TABLE.write(path)
    again = Estimates.read(path)
    assert len(again) == 3
    assert all(map(same, again, TABLE))
    assert again[0] == TABLE[0]
    assert again[0].nulls[0].difference is None
    assert again[0].nulls[0].p is None
    assert again[2].nulls[0].difference == (0.3, math.inf)
    assert [p.name for p in path.parent.iterdir()] == ["estimates.parquet"]


def test_ids_of_measures_of_older_runs_are_read_as_the_present_ones(tmp_path):
    former = ("adapt.won_back", "latent_ablation.loss_foretold", "delta_norm")
    old = Estimates(Estimate(measure, 1.0, (0.5, 1.5), 9, "nats") for measure in former)
    old.write(tmp_path / "old.parquet")
    now = [one.measure for one in Estimates.read(tmp_path / "old.parquet")]
    assert now == ["adapt.recovered", "latent_ablation.loss_attributed", "delta_norm"]


def test_a_table_without_rows_comes_back(tmp_path):
    Estimates().write(tmp_path / "none.parquet")
    assert len(Estimates.read(tmp_path / "none.parquet")) == 0
    frame = Estimates().to_frame()
    assert len(frame) == 0
    assert str(frame["rank"].dtype) == "Int64"


def test_what_is_no_table_of_estimates_is_refused(tmp_path):
    path = tmp_path / "estimates.parquet"
    with pytest.raises(InputError, match="missing"):
        Estimates.read(path)
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="no table of estimates"):
        Estimates.read(path)
    pd.DataFrame({"measure": ["x"], "value": [1.0]}).to_parquet(path)
    with pytest.raises(InputError, match="other columns"):
        Estimates.read(path)


def test_estimates_are_picked_by_measure_and_key():
    assert list(TABLE.select("overlap", site="layers.5")) == [TABLE[1]]
    assert list(TABLE.select(draw=3, massive="without")) == [TABLE[0]]
    assert list(TABLE.select(seed=[0, 1])) == [TABLE[1], TABLE[2]]
    assert TABLE.one(k=64) is TABLE[2]
    with pytest.raises(LookupError, match="2 estimates"):
        TABLE.one(adapter="r8")
    assert list(TABLE.select(draw=3)) == []


def test_a_measure_or_field_that_is_not_there_is_an_error_with_the_nearest_names():
    with pytest.raises(KeyError) as error:
        TABLE.select("ovrelap")
    assert "ovrelap" in str(error.value)
    assert "overlap" in str(error.value)
    assert str(error.value).count("\n") == 0
    with pytest.raises(InputError, match="site"):
        TABLE.select(sight="layers.5")
    # The first part of a name leads to those that begin with it.
    several = Estimates([replace(TABLE[1], measure=m) for m in ("angle.mean", "angle.min", "x")])
    with pytest.raises(KeyError, match=r"angle\.mean or angle\.min"):
        several.select("angle")
    # An empty part of a table still knows what the whole one is called.
    none = TABLE.select("overlap", site="nowhere")
    assert len(none) == 0
    assert list(none.select("overlap")) == list(none[:0].select("overlap")) == []
    assert list(TABLE.taken("ovrelap")) == []
    with pytest.raises(KeyError):
        TABLE.taken(sight="layers.5")


def test_numbers_of_null_adapters_are_told_apart():
    assert list(TABLE.of_adapters) == [TABLE[1], TABLE[2]]
    assert list(TABLE.of_nulls) == [TABLE[0]]


def test_the_frame_holds_key_value_difference_and_verdict():
    frame = TABLE.to_frame()
    first, second, third = frame.to_dict("records")
    for name in KEY_FIELDS:
        # The key's own null has a column of its own beside the null the number is held against.
        assert first["draw_of" if name == "null" else name] == getattr(WHOLE, name)
    assert (first["null"], first["chance"], first["chance_high"]) == ("null adapters", 0.20, 0.26)
    assert first["difference"] == pytest.approx(0.1)
    assert first["difference_low"] == pytest.approx(0.1 - math.sqrt(0.0052))
    assert (first["verdict"], first["margin"]) == ("above", 0.05)
    assert (second["verdict"], second["null"]) == ("no verdict", "")
    assert pd.isna(second["k"])
    assert (third["p"], third["verdict"]) == (0.004, "above")


def test_the_frame_of_nulls_has_the_verdict_against_each():
    frame = TABLE.nulls_frame()
    assert frame["null"].tolist() == ["null adapters", "zero predictor", "base"]
    assert frame["rival"].tolist() == [True, False, True]
    assert frame["verdict"].tolist() == ["above", "above", "above"]
    assert frame["draws"].tolist() == [0, 0, 7]
    assert frame["adapter"].tolist() == ["r4", "r4", "r8"]


def test_notebooks_show_a_table_without_empty_columns():
    shown = TABLE[1:]._repr_html_()
    assert "layers.7" in shown
    assert "<th>topic</th>" not in shown
    hostile = Estimates([estimate(1.0, 0.5, 2.0, key=Key("<script>x</script>"))])
    assert "<script>" not in hostile._repr_html_()


def test_a_table_is_written_and_read_at_a_path_given_as_text(tmp_path):
    TABLE.write(str(tmp_path / "estimates.parquet"))
    again = Estimates.read(str(tmp_path / "estimates.parquet"))
    assert all(map(same, again, TABLE))
    assert repr(again).startswith("Estimates(3: ")


def test_apart_from_a_reference_is_told_from_apart_from_a_rival():
    for rival in (False, True):
        one = estimate(0.5, 0.4, 0.6, Null("base", 0.1, 0.0, 0.2, rival, (0.3, 0.5)))
        assert one.verdict == "above"
        assert one.apart_from_reference is not rival
        assert sign(one) == ("▲" if rival else "(▲)")
        assert ("reference" in str(one)) is not rival


def test_numbers_show_themselves_in_one_short_line():
    found = estimate(0.30, 0.26, 0.35, DRAWN, ZERO, key=Key("r4", 4, "layers.5"))
    shown = repr(found)
    assert len(shown) < 200
    for part in ("overlap", "0.3", "[0.26, 0.35]", "share", "0.2", "null adapters", "above", "r4"):
        assert part in shown
    assert "zero predictor" not in shown
    assert repr(DRAWN) == "Null(null adapters 0.2 [0.17, 0.26], rival)"
    assert "[" not in repr(replace(found, interval=(math.nan, math.nan), nulls=()))
    # Nothing in a name acts on the terminal it is shown in.
    assert "\x1b" not in repr(replace(found, key=Key("\x1b[2J")))


def test_tables_in_notebooks_are_escaped_and_say_what_they_leave_out():
    mean = '<img src=x onerror="alert(1)">'
    found = estimate(0.30, 0.26, 0.35, replace(DRAWN, name=mean), key=Key(mean, None, "layers.5"))
    for html in (found._repr_html_(), Estimates([found] * 70)._repr_html_()):
        assert "<img" not in html
        assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;" in html
    table = Estimates([found] * 70)._repr_html_()
    assert table.count("<tr>") == 1 + 60
    assert "10 more rows" in table
    # Fields of the key that no number has get no column.
    heads = table[: table.index("</thead>")]
    assert "site" in heads
    assert "latent" not in heads


@pytest.mark.parametrize(
    ("field", "value"),
    [("value", "0.3"), ("interval", None), ("nulls", DRAWN), ("key", "r4")],
)
def test_an_estimate_of_the_wrong_parts_is_refused(field, value):
    with pytest.raises(InputError, match=field[:-1] if field == "nulls" else field):
        replace(estimate(0.3, 0.2, 0.4), **{field: value})
    with pytest.raises(InputError, match="level"):
        Null("x", None, 0.0, 0.0)

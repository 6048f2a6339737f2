"""Numbers without what is massive: by hand, and the same verdicts as for a stream that has none."""

from dataclasses import replace

import pytest
import torch

from lorascope.activations.massive import Massive, find_massive
from lorascope.activations.scaling import mean_and_covariance
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.geometry.chance import isotropic
from lorascope.measures import alignment, cka, firing, norms, overlap, reconstruction
from lorascope.measures.alignment import NullSettings
from lorascope.measures.definitions import declared
from lorascope.measures.massive import (
    covariance_without,
    dictionary_without,
    nulls_without,
    place_without,
    share_estimate,
)
from lorascope.measures.rows import HeldOut
from lorascope.measures.written_directions import WrittenDirections, written_without
from lorascope.measures.yardsticks import Bars, Stream, judge, yardstick_estimates
from lorascope.planted.activations import Planted, PlantedRecipe
from lorascope.randomness import generator
from lorascope.results import Estimates, Key
from lorascope.training.architectures import ReLU
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting

D = 96
PLACE = Key(adapter="r4", rank=4, site="layers.3", seed=0)
SECOND = Massive((1,), torch.zeros(0, 4), (0.9,), (500.0,))


def slanted(d):
    """Coordinate 1, and the direction that all others share."""
    aim = torch.ones(d)
    aim[1] = 0.0
    return Massive((1,), (aim / aim.norm())[None], (0.8, 0.1), (300.0, 20.0))


def test_share_by_hand():
    found = share_estimate(slanted(4), 1000, Key(site="layers.3"))
    assert found.value == pytest.approx(0.9)
    assert (found.n, found.verdict) == (1000, "no verdict")


def test_numbers_without_are_told_apart_in_the_table(tmp_path):
    whole = share_estimate(SECOND, 10, PLACE)
    apart = share_estimate(SECOND, 10, place_without(PLACE))
    table = Estimates([whole, apart])
    assert list(table.select("massive.share")) == [whole]
    assert table.one("massive.share", massive="without") == apart
    assert len(table.select(massive=["", "without"])) == 2
    table.write(tmp_path / "numbers.parquet")
    again = Estimates.read(tmp_path / "numbers.parquet")
    assert [e.key for e in again] == [whole.key, apart.key]
    assert table.to_frame()["massive"].tolist() == ["", "without"]


def rows_without(rows, massive):
    return replace(rows, base=massive.without(rows.base), delta=massive.without(rows.delta))


def test_size_by_hand():
    delta = torch.tensor([[3.0, 100.0, 4.0, 0.0], [0.0, -80.0, 0.0, 2.0]])
    base = torch.tensor([[0.0, 900.0, 1.0, 0.0], [3.0, 900.0, 0.0, 0.0]])
    rows = HeldOut(base, delta, torch.arange(2))
    norm, relative = norms.norm_estimates(rows_without(rows, SECOND), 0.1, place_without(PLACE))
    assert norm.value == pytest.approx((5 + 2) / 2)
    assert relative.value == pytest.approx(7 / 4)
    assert norm.key == replace(PLACE, massive="without")


def test_covariance_of_the_rows_without():
    rows = torch.randn(500, 6, generator=generator(0, "rows")) * torch.arange(1.0, 7.0)
    massive = slanted(6)
    expected = massive.without(rows).T.cov()
    found = covariance_without(rows.T.cov(), massive)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    given = NullSettings(rows.T.cov(), None, trained={"other": rows[:3]})
    nulls = nulls_without(given, massive)
    assert torch.equal(nulls.delta_covariance, found)
    assert nulls.base_covariance is None
    assert torch.equal(nulls.trained["other"], massive.without(rows[:3]))


@pytest.mark.parametrize("kind", ["relu", "topk", "gated"])
@pytest.mark.parametrize("subtract", [True, False])
def test_a_deaf_dictionary_reads_the_bias_where_the_stream_is_massive(kind, subtract):
    random = generator(0, "deaf")
    directions = isotropic(30, 8, random)
    bias = torch.randn(8, generator=random)
    named = {"subtract_bias": subtract}
    parts = (directions.T.clone(), torch.zeros(30), directions, bias)
    made = {
        "relu": lambda: ReluDictionary(*parts, **named),
        "topk": lambda: TopKDictionary(*parts, k=4, **named),
        "gated": lambda: GatedDictionary(*parts, torch.zeros(30), torch.zeros(30), **named),
    }[kind]()
    massive = slanted(8)
    deaf = dictionary_without(made, massive)
    rows = 5 * torch.randn(40, 8, generator=random)
    basis = massive.basis
    at_bias = massive.without(rows)
    if subtract:
        at_bias = at_bias + (bias @ basis.T) @ basis
    z = made.encode(at_bias)
    assert (z > 0).any()
    torch.testing.assert_close(deaf.encode(rows), z, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(deaf.encode(massive.without(rows)), z, atol=1e-4, rtol=1e-4)
    expected = massive.without(made.decode(z))
    torch.testing.assert_close(deaf(rows), expected, atol=1e-4, rtol=1e-4)


def test_written_directions_are_taken_apart_anew():
    # Sizes 5 and 2; coordinate 1 takes four fifths of the first direction's length away.
    first, second = torch.tensor([0.6, 0.8, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.6, 0.8])
    one = WrittenDirections(
        "layers.0.mlp.down_proj", torch.stack([first, second]), torch.tensor([5.0, 2.0]), 30.0
    )
    alone = WrittenDirections("layers.1.mlp.down_proj", torch.eye(4)[1:2], torch.tensor([3.0]), 9.0)
    [found] = written_without([one, alone], SECOND)
    assert found.module == one.module
    assert found.sizes.tolist() == pytest.approx([3.0, 2.0])
    assert found.directions.abs()[0].tolist() == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert found.directions.abs()[1].tolist() == pytest.approx([0, 0, 0.6, 0.8], abs=1e-6)
    # One of energy 1 lay beyond the directions kept.
    assert found.energy == pytest.approx(9 + 4 + 1)


def grown(rows, name):
    """The same rows with a large constant in coordinate 3 and a varying one in 8 of the base; the
    adapter moves coordinate 3 too, more than all else."""
    varying = torch.randn(len(rows), 2, generator=generator(0, "massive", name))
    base, delta = rows.base.clone(), rows.delta.clone()
    base[:, 3] += 60
    base[:, 8] += 25 * varying[:, 0]
    delta[:, 3] += 12 * varying[:, 1]
    return HeldOut(base, delta, rows.documents)


def measured(training, held_out):
    """Every number of one adapter and site, without what is massive; yardsticks of both
    dictionaries."""
    fitting = Fitting(epochs=12, batch=128, products="float32")
    massive, seeds = find_massive(training.base), {"base": 1, "delta": 2}
    learned, passed = {}, {}
    for target, seed in seeds.items():
        rows = getattr(training, target)
        card = Card(target=target)
        made = fit(ReLU(n_latents=64, l1=0.1), rows, fitting=fitting, seed=seed, card=card)
        own = find_massive(rows, directions=target == "base")
        mean, covariance = mean_and_covariance([rows])
        stream = Stream(
            mean, covariance, getattr(held_out, target), held_out.documents, own or None
        )
        found = yardstick_estimates(made, stream, replace(PLACE, dictionary=target))
        passed[target] = judge(found, Bars(), D).passed
        learned[target] = dictionary_without(made, massive)
    rows, here = rows_without(held_out, massive), place_without(PLACE)
    mean, covariance = mean_and_covariance([training.delta])
    _, base_covariance = mean_and_covariance([training.base])
    nulls = nulls_without(NullSettings(covariance, base_covariance, 10), massive)
    base, delta = learned["base"], learned["delta"]
    errors = [reconstruction.errors(d, rows.delta, rows.documents) for d in (base, delta)]
    compared = replace(here, dictionary="delta vs base")
    alive = firing.firing(delta, rows.delta).alive
    estimates = [
        *norms.norm_estimates(rows, 1e-3, here),
        norms.rank_estimate(rows, here),
        *cka.site_cka_estimates(
            rows.base, {"r4": rows.delta}, rows.documents, places={"r4": here}, repeats=10
        ),
        reconstruction.improvement(*errors, delta, {}, rows, here),
        *overlap.overlap_estimates(base, rows, here),
        *alignment.max_cosine_estimates(
            delta.directions, base.directions, nulls=nulls, place=compared, alive=alive
        ),
        *alignment.angle_estimates(
            delta.directions, base.directions, k=16, nulls=nulls, place=compared, alive=alive
        ),
    ]
    for label, found in zip(("base", "delta"), errors, strict=True):
        own = reconstruction.null_errors(learned[label], rows, massive.without(mean), 0)
        at = replace(here, dictionary=label)
        estimates += reconstruction.error_estimates(found, own, at)
    return passed, {(e.measure, e.key.dictionary): declared(e) for e in estimates}


def test_a_massive_stream_gets_the_verdicts_of_its_twin():
    planted = Planted.of(PlantedRecipe(share=0.5, d_model=D, rate=0.125))
    training, held_out = planted.rows(100, 60, "training"), planted.rows(40, 60, "held out")
    grown_rows = grown(training, "training"), grown(held_out, "held out")
    assert find_massive(grown_rows[0].base).coordinates == (3, 8)
    assert find_massive(grown_rows[0].delta, directions=False).coordinates == (3,)
    passed, plain = measured(training, held_out)
    of_massive, found = measured(*grown_rows)
    assert passed == of_massive == {"base": True, "delta": True}
    pairs = [(e.verdict, plain[key].verdict) for key, e in found.items()]
    # One that lies on a bound may fall to either side of it, none across.
    assert sum(one != other for one, other in pairs) <= 1
    assert not {("above", "below"), ("below", "above")} & set(pairs)
    assert {e.verdict for e in found.values()} >= {"above", "below", "not settled"}
    for key in [
        ("max_cosine.mean", "delta vs base"),
        ("overlap", "base"),
        ("improvement", "delta"),
    ]:
        assert found[key].value == pytest.approx(plain[key].value, abs=0.05)
        assert found[key].verdict == "above"


def test_a_base_dictionary_asked_about_a_delta_without_the_constants():
    # As trained, it takes a delta for a stream from which the constant has vanished.
    planted = Planted.of(PlantedRecipe(share=0.5, d_model=D, rate=0.125))
    rows = grown(planted.rows(20, 40, "held out"), "held out")
    massive = find_massive(rows.base)
    bias = torch.zeros(D)
    bias[3] = 60
    own = planted.dictionary()
    encoder = own.encoder.clone()
    encoder[3] = 0.05
    base = own.with_tensors({"encoder": encoder, "decoder_bias": bias})
    documents = rows.documents
    whole = reconstruction.errors(base, rows.delta, documents).mean
    without = rows_without(rows, massive)
    deaf = reconstruction.errors(dictionary_without(base, massive), without.delta, documents).mean
    alone = reconstruction.errors(dictionary_without(own, massive), without.delta, documents).mean
    assert whole > 2
    assert deaf == pytest.approx(alone, rel=1e-4)
    assert deaf < 1

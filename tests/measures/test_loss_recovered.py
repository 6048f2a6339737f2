"""Loss recovered: all of it, none of it, what principal components keep; against hooks."""

import math

import pytest
import torch
from torch.nn import functional

from lorascope.activations.scaling import mean_and_covariance
from lorascope.activations.tokens import Window
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.geometry.chance import isotropic
from lorascope.measures.definitions import declared, definition
from lorascope.measures.loss_recovered import loss_recovered
from lorascope.measures.yardsticks import MEAN, PCA, Stream, principal
from lorascope.models.adapted import load
from lorascope.models.hooks import capture, replace
from lorascope.models.sites import Site
from lorascope.randomness import generator
from lorascope.results import Key

D = 32
SITE = "layers.1"
PLACE = Key(site=SITE, seed=0, dictionary="base")


@pytest.fixture(scope="module")
def model(tiny_checkpoint, save_adapter, tmp_path_factory):
    folder = save_adapter(tmp_path_factory.mktemp("a") / "a", target_modules=["up_proj"])
    return load(str(tiny_checkpoint()), {"a": str(folder)}, device="cpu")


@pytest.fixture(scope="module")
@torch.no_grad()
def ids(model):
    """Sixteen documents in the model's own words: what it expects costs it little."""
    random = torch.Generator().manual_seed(0)
    found = torch.randint(3, 60, (16, 1), generator=random)
    with model.variant("base") as module:
        for _ in range(11):
            logits = module(input_ids=found).logits[:, -1]
            logits[:, :3] = -torch.inf
            drawn = torch.multinomial((2 * logits).softmax(-1), 1, generator=random)
            found = torch.cat([found, drawn], dim=1)
    return found


@pytest.fixture(scope="module")
def windows(ids):
    return [Window(row.tolist(), [False] * len(row), i) for i, row in enumerate(ids)]


@pytest.fixture(scope="module")
def rows(model, ids):
    with model.variant("base") as module, capture(module, [Site(1)]) as streams, torch.no_grad():
        module(input_ids=ids)
    return streams[Site(1)].reshape(-1, D).float()


@pytest.fixture(scope="module")
def stream(rows):
    return Stream(*mean_and_covariance([rows]), rows, torch.arange(16).repeat_interleave(12))


@pytest.fixture(scope="module")
def recovered(model, stream, windows):
    def measure(dictionary, count=4):
        given = ({PLACE: dictionary}, {SITE: stream}, {PLACE: count})
        [found] = loss_recovered(model, windows, *given)
        return found

    return measure


def both_ways(axes, bias):
    both = torch.cat([axes, -axes])
    return ReluDictionary(both.T, torch.zeros(len(both)), both, bias)


def test_a_perfect_dictionary_recovers_all_and_a_silent_one_nothing(recovered, stream):
    whole = recovered(both_ways(torch.eye(D), stream.mean))
    assert whole.value == pytest.approx(1, abs=1e-3)
    assert whole.interval == pytest.approx((1, 1), abs=5e-3)
    silent = both_ways(torch.zeros(3, D), stream.mean)
    none = recovered(silent)
    assert none.value == pytest.approx(0, abs=1e-3)
    assert (whole.key, whole.unit) == (PLACE, definition("yardstick.loss_recovered").unit)
    assert [null.name for null in whole.nulls] == [MEAN, PCA]
    assert declared(whole).verdict == "above"
    # 16 documents of 12 tokens: the first is predicted from nothing.
    assert whole.n == 16 * 11


def test_components_are_spliced_alike(recovered, stream):
    axes = principal(stream.covariance, 6)
    found = recovered(both_ways(axes, stream.mean), count=6)
    beside = found.nulls[1]
    assert beside.level == pytest.approx(found.value, abs=1e-4)
    assert beside.difference == pytest.approx((0, 0), abs=1e-3)
    assert recovered(both_ways(axes, stream.mean), count=D).nulls[1].level == pytest.approx(
        1, abs=1e-3
    )


@torch.no_grad()
def test_against_hooks_on_the_whole_model(model, recovered, stream, ids):
    random = generator(0, "dictionary")
    directions = isotropic(60, D, random)
    made = ReluDictionary(directions.T * 0.3, torch.full((60,), -0.1), directions, stream.mean)

    def loss(change):
        with model.variant("base") as module, replace(module, Site(1), change):
            logits = module(input_ids=ids).logits
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    base, spliced, mean = (
        loss(change) for change in (lambda x: x, made, lambda x: stream.mean.to(x).expand_as(x))
    )
    found = recovered(made)
    assert found.value == pytest.approx(float((mean - spliced) / (mean - base)), abs=1e-3)
    assert abs(found.value) > 0.05


def test_attention_sinks_keep_their_stream(model, stream, windows):
    # With every token an outlier nothing is replaced, and there is nothing to lose.
    settings = Stream(stream.mean, stream.covariance, stream.rows * 1e-3, stream.documents)
    given = ({PLACE: both_ways(torch.zeros(3, D), stream.mean)}, {SITE: settings}, {PLACE: 3})
    assert loss_recovered(model, windows, *given) == []


def test_several_dictionaries_and_few_tokens(model, stream, windows):
    other = Key(site="layers.0", seed=1, dictionary="base")
    given = {
        PLACE: both_ways(torch.eye(D), stream.mean),
        other: both_ways(torch.eye(D)[:8], stream.mean),
    }
    counts = {PLACE: 2, other: 3}
    found = loss_recovered(
        model, windows, given, {SITE: stream, "layers.0": stream}, counts, most=125
    )
    assert [e.key for e in found] == [PLACE, other]
    # Sixteen documents of 11 predicted tokens: fewer than twenty are all taken.
    assert [e.n for e in found] == [176, 176]
    assert found[0].value == pytest.approx(1, abs=1e-2)
    assert found[1].value < 0.9


def test_too_few_documents_for_an_interval_leave_the_value(model, stream, windows):
    given = ({PLACE: both_ways(torch.eye(D), stream.mean)}, {SITE: stream}, {PLACE: 2})
    [found] = loss_recovered(model, windows[:4], *given)
    assert found.value == pytest.approx(1, abs=1e-2)
    assert math.isnan(found.interval[0])
    assert found.verdict == "no verdict"

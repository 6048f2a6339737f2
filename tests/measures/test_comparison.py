"""Two adapters on the same tokens: numbers by hand, planted truth, and nothing planted."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic, random_rotation
from lorascope.measures.comparison import (
    DeltaPair,
    agreement_estimates,
    energy_estimates,
    spread,
    subspace_estimates,
)
from lorascope.measures.definitions.comparison import DEFINITIONS
from lorascope.measures.exclusive_latents import (
    activity,
    latent_estimates,
    mirrored_rates,
    only_here,
)
from lorascope.randomness import generator
from lorascope.results import Key

PLACE = Key(adapter="one vs two", site="layers.1")


def pair_of(first, second, documents=None):
    first, second = torch.tensor(first).float(), torch.tensor(second).float()
    if documents is None:
        documents = torch.arange(len(first))
    return DeltaPair(torch.ones_like(first), first, second, documents)


def dictionary_of(directions):
    """z = max(0, x · d_i): reads what it writes."""
    n, d = directions.shape
    return ReluDictionary(directions.T.clone(), torch.zeros(n), directions, torch.zeros(d))


def by_measure(estimates):
    return {e.measure: e for e in estimates}


def test_agreement_by_hand():
    pair = pair_of([[1, 0], [0, 2], [3, 4]], [[2, 0], [2, 0], [6, 8]])
    found = by_measure(agreement_estimates(pair, PLACE))
    assert found["compare.cosine"].value == pytest.approx(2 / 3)
    # |(1,0)| + |(2,-2)| + |(3,4)| over the mean sizes 1.5 + 2 + 7.5
    assert found["compare.difference"].value == pytest.approx((1 + math.sqrt(8) + 5) / 11)
    expected = np.corrcoef([1, 2, 5], [2, 2, 10])[0, 1]
    assert found["compare.norm_correlation"].value == pytest.approx(expected)


def test_agreement_of_related_and_unrelated_rows():
    random = generator(0, "rows")
    documents = torch.arange(600) // 20
    sizes = 1 + torch.rand(600, 1, generator=random)
    first, other = (torch.randn(2, 600, 24, generator=random) * sizes).unbind(0)
    related = DeltaPair(first, first, 0.8 * first + 0.2 * other, documents)
    found = by_measure(agreement_estimates(related, PLACE))
    assert found["compare.cosine"].verdict == "above"
    assert found["compare.norm_correlation"].verdict == "above"
    assert found["compare.difference"].verdict == "below"
    unrelated = DeltaPair(first, first, other.roll(100, 0), documents)
    for estimate in agreement_estimates(unrelated, PLACE):
        assert estimate.verdict in ("equal", "not settled"), estimate


def test_one_long_document_cannot_be_shifted():
    pair = pair_of(np.eye(6), np.eye(6), torch.tensor([0, 0, 0, 0, 1, 2]))
    with pytest.raises(InputError, match="4 of them in one document"):
        agreement_estimates(pair, PLACE)


def test_energy_by_hand():
    rows = torch.tensor([[3.0, 4.0, 0.0]]).repeat(40, 1)
    own, other = (dictionary_of(torch.eye(3)[[i]]) for i in (0, 1))
    own_energy, other_energy, share = energy_estimates(
        rows, torch.arange(40), own, other, Key(adapter="one")
    )
    assert own_energy.value == pytest.approx(9 / 25)
    assert other_energy.value == pytest.approx(16 / 25)
    assert share.value == pytest.approx(16 / 9)
    places = [e.key.dictionary for e in (own_energy, other_energy, share)]
    assert places == ["own delta", "other's delta", "other's delta"]
    with pytest.raises(InputError, match="reconstructs nothing"):
        energy_estimates(
            rows, torch.arange(40), dictionary_of(torch.eye(3)[[2]]), other, Key(adapter="one")
        )


def gaussian_pair(first, second, n=2000, seed=0):
    """Rows whose dimensions are independent, with these variances."""
    random = generator(seed, "gaussian")
    rows = torch.randn(2, n, len(first), generator=random)
    rows = rows * torch.tensor([first, second]).float().sqrt()[:, None]
    base = torch.randn(n, len(first), generator=random)
    return DeltaPair(base, rows[0], rows[1], torch.arange(n) // 20)


def test_subspaces_by_hand():
    pair = gaussian_pair([8, 1.5, 0.5], [1, 8, 1])
    places = Key(adapter="one"), Key(adapter="two")
    angle, same, of_first, of_second = subspace_estimates(pair, [1], places)
    assert angle.value == pytest.approx(90, abs=3)
    assert same.value == pytest.approx(0, abs=3)
    assert (same.key.adapter, same.key.compared) == (angle.key.adapter, same.key.adapter)
    # The second's leading dimension holds 1.5 of the first's 10, the first's 1 of the second's 10.
    assert of_first.value == pytest.approx(0.15, abs=0.02)
    assert of_second.value == pytest.approx(0.10, abs=0.02)
    assert (of_first.key.adapter, of_second.key.adapter) == ("one", "two")
    assert of_first.interval[0] < of_first.value < of_first.interval[1]


def test_subspaces_alike_and_unrelated():
    steep = [2.0 ** (-i / 2) for i in range(24)]
    places = Key(adapter="one"), Key(adapter="two")
    alike = gaussian_pair(steep, steep)
    angle, _, variance, _ = subspace_estimates(alike, [4], places)
    assert angle.verdict == "below"
    assert variance.verdict == "above"
    verdicts = []
    for seed in range(12):
        turn = random_rotation(24, generator(seed, "turn"))
        turned = DeltaPair(alike.base, alike.first, alike.second @ turn, alike.documents)
        angle, _, variance, _ = subspace_estimates(turned, [4], places, repeats=10)
        verdicts += [angle.verdict, variance.verdict]
    assert sum(v in ("equal", "not settled") for v in verdicts) >= 21


def test_spread_takes_rows_from_everywhere():
    assert spread(torch.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert spread(torch.arange(3), 4).tolist() == [0, 1, 2]


def test_activity_against_plain_arithmetic():
    random = generator(0, "activity")
    pair = DeltaPair(*torch.randn(3, 120, 6, generator=random), torch.arange(120) // 8)
    pair.second[:40] *= 0.2
    directions = 1.5 * isotropic(4, 6, random)
    found = activity(dictionary_of(directions), pair)
    z = (pair.first @ directions.T).clamp(min=0).numpy().astype(float)
    other = (pair.second @ directions.T).clamp(min=0).numpy().astype(float)
    logs = (pair.first.norm(dim=1) / pair.second.norm(dim=1)).log().numpy()
    other *= np.exp(logs.mean())  # both deltas as strong
    assert np.allclose(found.density, np.stack([(z > 0).mean(0), (other > 0).mean(0)]))
    energies = np.stack([(z**2).mean(0), (other**2).mean(0)]) * 1.5**2
    assert np.allclose(found.energy, energies, rtol=1e-4)
    excess = ((z**2) * (logs - logs.mean())[:, None]).sum(0) / (z**2).sum(0)
    assert np.allclose(found.excess, excess, atol=1e-4)
    assert found.documents.tolist() == [
        len({int(pair.documents[row]) for row in np.flatnonzero(column)}) for column in z.T
    ]
    assert (found.contrast_low <= found.contrast).all()
    assert (found.contrast <= found.contrast_high).all()
    assert (found.energy_low <= found.energy).all()
    assert (found.energy <= found.energy_high).all()


def test_contrast_interval_is_that_of_documents():
    """Half of the documents fire at every token, half at none: the spread is a binomial's."""
    documents = torch.arange(2000) // 20
    on = (documents % 2 == 0).float()[:, None]
    pair = DeltaPair(torch.ones(2000, 1), on + 1e-6, torch.full((2000, 1), -1.0), documents)
    found = activity(
        ReluDictionary(
            torch.tensor([[1.0]]),
            torch.tensor([-0.5]),
            torch.tensor([[1.0]]),
            torch.tensor([0.0]),
        ),
        pair,
    )
    assert found.contrast.item() == pytest.approx(0.5)
    low, high = stats.binom.ppf([0.025, 0.975], 100, 0.5) / 100
    assert found.contrast_low.item() == pytest.approx(low, abs=0.02)
    assert found.contrast_high.item() == pytest.approx(high, abs=0.02)


def test_mirrored_rates_by_hand():
    scores, mirrored = torch.tensor([4.0, 1.0, 5.0, 3.0]), torch.tensor([3.5, 0.5])
    # In order 5, 4, 3, 1: (1+0)/1, (1+0)/2, (1+1)/3, (1+1)/4.
    assert mirrored_rates(scores, mirrored).tolist() == [0.5] * 4
    # One mirrored latent stands for two, an unseen one too: 2/1, 2/2, 4/3, 4/4; and halved.
    doubled = mirrored_rates(scores, mirrored, times=2).tolist()
    assert doubled == pytest.approx([1.0, 1.0, 1.0, 1.0])
    halved = mirrored_rates(scores, mirrored, times=0.5).tolist()
    assert halved == pytest.approx([0.375] * 4)
    # Without excess nothing is listed.
    assert mirrored_rates(scores - 3, mirrored - 9).tolist() == [0.5, 1.0, 0.5, 1.0]
    copied = mirrored_rates(scores, mirrored, copies=2).tolist()
    assert copied == pytest.approx([0.75, 0.75, 0.75, 0.75])
    # Equal scores stand or fall together, and a mirrored one of equal size counts against them.
    level = mirrored_rates(torch.tensor([2.0, 2.0]), torch.tensor([2.0]))
    assert level.tolist() == [1.0, 1.0]
    assert mirrored_rates(torch.zeros(0), mirrored).tolist() == []


@pytest.mark.parametrize("copies", [1, 2])
def test_interchangeable_scores_are_listed_no_more_often_than_stated(copies):
    """`copies` dictionaries that all hold the same finding: the rate must hold there too."""
    repeats, rate = 400, 0.34
    listed = 0
    for repeat in range(repeats):
        scores = torch.randn(2, 60, generator=generator(repeat, "scores")).repeat(1, copies)
        listed += bool((mirrored_rates(scores[0], scores[1], copies=copies) <= rate).any())
    assert listed <= stats.binom.ppf(0.99, repeats, rate)
    assert listed > 0


FEATURES, PLANTED, D = 48, 24, 64


def planted_pair(seed, planted, turned):
    """Rows of known features; the second adapter writes them along other directions if `turned`.

    The planted features are on in a fifth of the documents and under the first adapter alone.
    """
    random = generator(seed, "planted")
    ours = isotropic(FEATURES + PLANTED, D, random)
    theirs = isotropic(FEATURES, D, random) if turned else ours[:FEATURES]
    documents = torch.arange(4800) // 40
    codes = torch.rand(4800, FEATURES, generator=random)
    codes = torch.where(torch.rand(codes.shape, generator=random) < 0.08, 1 + codes, 0.0)
    noise = 0.05 * torch.randn(2, 4800, D, generator=random)
    extra = torch.rand(4800, PLANTED, generator=random) < 0.05
    extra &= (documents % 5 == 0)[:, None]
    first = codes @ ours[:FEATURES] + noise[0]
    if planted:
        first = first + 2 * extra.float() @ ours[FEATURES:]
    second = codes @ theirs + noise[1]
    pair = DeltaPair(first, first, second, documents)
    bias = torch.full((FEATURES + PLANTED,), -0.7)
    own = ReluDictionary(ours.T.clone(), bias, ours, torch.zeros(D))
    other = ReluDictionary(theirs.T.clone(), bias[:FEATURES], theirs, torch.zeros(D))
    return pair, own, other


def search(pair, own, other):
    ours, theirs = activity(own, pair), activity(other, pair.turned)
    return only_here([ours], [theirs], 0.1), only_here([theirs], [ours], 0.1)


def test_planted_latents_are_listed():
    ours, theirs = search(*planted_pair(0, planted=True, turned=True))
    listed = set(ours.listed(0).tolist())
    planted = set(range(FEATURES, FEATURES + PLANTED))
    assert len(listed & planted) >= 0.75 * PLANTED
    assert len(listed - planted) <= 0.2 * len(listed)
    assert not len(theirs.listed(0))
    (estimate,) = latent_estimates(ours, PLACE)
    assert estimate.value == pytest.approx(len(listed) / estimate.n)
    assert estimate.verdict == "above"


def test_without_latents_of_the_other_s_own_nothing_is_listed():
    """All directions of the second are the first's: nothing says what excess comes by itself."""
    ours, _ = search(*planted_pair(0, planted=True, turned=False))
    assert ours.found[0].one_sided.sum() >= 0.7 * PLANTED
    assert ours.mirrored < 5
    assert not len(ours.listed(0))
    with pytest.raises(InputError, match="one-sided"):
        latent_estimates(ours, PLACE)


@pytest.mark.parametrize("turned", [False, True])
def test_the_same_twice_as_strong_has_nothing_of_its_own(turned):
    pair, own, other = planted_pair(3, planted=False, turned=turned)
    strong = DeltaPair(pair.base, 2 * pair.first, pair.second, pair.documents)
    weak, doubled = activity(own, pair), activity(_scaled(own, 2), strong)
    assert doubled.one_sided.tolist() == weak.one_sided.tolist()
    assert torch.allclose(doubled.excess, weak.excess, atol=1e-4)
    back = activity(other, strong.turned)
    assert back.one_sided.tolist() == activity(other, pair.turned).one_sided.tolist()
    assert not any(len(found.listed(0)) for found in search(strong, _scaled(own, 2), other))


def _scaled(dictionary, by):
    """The dictionary of rows `by` times as long."""
    biases = by * dictionary.encoder_bias, by * dictionary.decoder_bias
    return ReluDictionary(dictionary.encoder, biases[0], dictionary.directions, biases[1])


def test_ten_copies_of_a_latent_are_one_finding():
    pair, own, other = planted_pair(0, planted=True, turned=True)
    copied, mirrored = (
        ReluDictionary(
            d.encoder.repeat(1, 10),
            d.encoder_bias.repeat(10),
            d.directions.repeat(10, 1),
            d.decoder_bias,
        )
        for d in (own, other)
    )
    (once, _), (ten, _) = search(pair, own, other), search(pair, copied, mirrored)
    assert torch.equal(ten.listed_rates().sort().values, once.listed_rates().sort().values)
    assert len(ten.listed(0)) == 10 * len(once.listed(0))
    assert latent_estimates(ten, PLACE)[0].value == latent_estimates(once, PLACE)[0].value


def test_other_directions_alone_are_nothing_to_list():
    """One-sided all of them, and none is listed: the same is written along other directions."""
    found = 0
    for seed in range(20):
        ours, theirs = search(*planted_pair(seed, planted=False, turned=True))
        assert ours.found[0].one_sided.sum() > 0.8 * FEATURES
        found += bool(len(ours.listed(0)) or len(theirs.listed(0)))
    assert found <= stats.binom.ppf(0.99, 20, 0.2)


def test_without_documents_enough_there_is_no_share():
    pair = pair_of(np.eye(4), np.eye(4))
    ours = activity(dictionary_of(torch.eye(4)), pair)
    with pytest.raises(InputError, match="no latent fires in 10"):
        latent_estimates(only_here([ours], [ours], 0.1), PLACE)


def test_every_measure_is_defined():
    pair = gaussian_pair([8, 1.5, 0.5], [1, 8, 1])
    rows = by_measure(agreement_estimates(pair, PLACE))
    rows |= by_measure(subspace_estimates(pair, [1], (PLACE, PLACE)))
    own = dictionary_of(torch.eye(3))
    rows |= by_measure(energy_estimates(pair.first, pair.documents, own, own, PLACE))
    rows |= by_measure(latent_estimates(search(*planted_pair(0, True, True))[0], PLACE))
    assert set(rows) == set(DEFINITIONS)
    for estimate in rows.values():
        assert DEFINITIONS[estimate.measure].unit == estimate.unit
        assert estimate.nulls

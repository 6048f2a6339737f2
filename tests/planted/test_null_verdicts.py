"""Null draws judged by the remaining draws: counted where they are apart, and only there."""

import torch

from lorascope.measures.null_draws import beside_draws
from lorascope.planted.null_verdicts import featureless_shares, null_adapter_shares
from lorascope.results import ADAPTER, GAUSSIAN, Estimate, Key
from lorascope.results.labels import DELTA_VS_BASE

RANKS = range(1, 5)


def numbers(null, far=(), draws=5, shift=0.0):
    """Max cosines of an adapter and `draws` draws at every rank; draws named in `far` lie away."""
    random = torch.Generator().manual_seed(len(null))
    for rank in RANKS:
        for draw in range(draws):
            value = shift + 0.3 + 0.01 * float(torch.randn(1, generator=random))
            value += 0.2 * ((rank, draw) in far)
            key = Key("a", rank, "layers.1", null=null, draw=draw, **DELTA_VS_BASE._asdict())
            yield Estimate("max_cosine.mean", value, (value, value), 9, "cosine", key=key)


def given():
    for rank in RANKS:
        key = Key("a", rank, "layers.1", seed=0, **DELTA_VS_BASE._asdict())
        yield Estimate("max_cosine.mean", 0.9, (0.9, 0.9), 9, "cosine", key=key)


def only_rank_one(estimates):
    return [e for e in estimates if e.key.rank == 1]


def test_draws_like_the_others_are_apart_in_a_twentieth():
    # One rank is one family of primary numbers: each rank as an adapter of its own.
    found = beside_draws([*given(), *numbers(ADAPTER)])
    named = [e.at(Key(**{**vars(e.key), "adapter": f"r{e.key.rank}"})) for e in found]
    share, by_measure = null_adapter_shares(named)
    assert (share.trials, by_measure.trials) == (5 * len(RANKS),) * 2
    assert share.passed
    assert by_measure.what == "max_cosine.mean"


def test_a_draw_far_from_the_others_is_counted():
    found = beside_draws([*given(), *numbers(ADAPTER, far={(1, 2)})])
    share, _ = null_adapter_shares(only_rank_one(found))
    assert (share.found, share.trials) == (1, 5)


def test_featureless_dictionaries_beside_the_rest_and_beside_both():
    found = beside_draws([*given(), *numbers(ADAPTER), *numbers(GAUSSIAN, far={(1, 2), (2, 4)})])
    alone, both = featureless_shares(found)
    assert alone.trials == both.trials == 5 * len(RANKS)
    assert 2 <= both.found <= alone.found
    assert "beside the rest" in alone.what
    assert both.passed


def test_featureless_dictionaries_away_from_null_adapters_alone_are_not_apart():
    """A verdict must leave both rivals: elsewhere than null adapters is not enough."""
    found = beside_draws([*given(), *numbers(ADAPTER), *numbers(GAUSSIAN, shift=0.3)])
    _, both = featureless_shares(found)
    assert both.share < 0.2


def test_without_draws_nothing_was_tried():
    (share,) = null_adapter_shares(list(given()))
    assert share.trials == 0
    assert not share.passed
    assert featureless_shares(list(given())) == []

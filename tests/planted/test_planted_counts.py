"""Power, searches and named latents: small, and with the fault each is there to see put back."""

import torch

from lorascope.measures import exclusive_latents
from lorascope.planted import named_latents, power
from lorascope.planted.latent_search import search_shares
from lorascope.planted.named_latents import exchangeable_shares, planted_latent_shares


def by_words(shares, *words):
    return [s for s in shares if all(word in s.what for word in words)]


def test_planted_alignment_is_found_by_the_max_cosine():
    found = power.alignment_shares(1)
    cosines = by_words(found, "max_cosine.mean", "25%", "0.9")
    assert len(cosines) == 2  # full-rank deltas and deltas of a rank
    for share in cosines:
        assert share.bar == 0.8
        assert share.found == share.trials == power.CONDITIONS


def test_where_no_alignment_is_planted_none_is_found():
    found = power.alignment_shares(3, shares=(0.0,))
    assert sum(share.found for share in found) <= 0.15 * sum(share.trials for share in found)


def test_a_gain_of_a_tenth_of_a_nat_is_found_and_none_is_not(monkeypatch):
    large = by_words(power.behaviour_shares(5), "0.1 nats")
    assert all(share.passed and share.bar == 0.8 for share in large)
    monkeypatch.setattr(power, "GAINS", (0.0,))
    assert all(share.share < 0.2 for share in power.behaviour_shares(10))


def test_two_adapters_that_do_the_same_have_little_listed():
    shares = search_shares(8)
    assert len(shares) == 4
    assert all(share.passed and share.trials == 16 for share in shares)


def test_copies_counted_one_by_one_are_found_out(monkeypatch):
    monkeypatch.setattr(exclusive_latents, "clusters", lambda d: torch.arange(len(d)))
    assert not all(share.passed for share in search_shares(30))


def test_named_latents_like_others_and_planted_ones():
    assert all(share.passed for share in exchangeable_shares(60))
    asked = [share for share in planted_latent_shares(40) if share.bar is not None]
    assert len(asked) == 2
    assert all(share.passed and share.share > 0.9 for share in asked)


def test_planted_latents_are_no_exchangeable_ones(monkeypatch):
    honest = named_latents._drawn
    monkeypatch.setattr(
        named_latents, "_drawn", lambda n, factor, planted, random: honest(n, 3.0, n, random)
    )
    shares = exchangeable_shares(30)
    assert not any(share.passed for share in shares if "up to 0.05" in share.what)

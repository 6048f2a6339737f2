"""Distances of streams, tested on splices whose effect is known."""

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.fits.card import open_fitted
from lorascope.fits.conditions import conditions_of
from lorascope.fits.wrapper import Spliced
from lorascope.measures.stream_distances import (
    OTHER_TOKENS,
    distance_estimates,
    stream_distances,
)
from lorascope.models.hooks import capture
from lorascope.models.sites import Site
from lorascope.outputs.splicing import spliced
from lorascope.results import Key
from lorascope.results.null_names import UNADAPTED


@pytest.fixture
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))


def test_distances_are_those_of_captured_streams(tiny_model, make, cut, tokenizer):
    model, dictionary = tiny_model(), make()
    held_out = cut(tokenizer)[1]
    special = tuple(tokenizer.all_special_ids)
    conditions = conditions_of(
        Spliced(model, {1: dictionary}, special_ids=special), {1: dictionary}
    )
    found = stream_distances(model, tokenizer, held_out, conditions, Site(1))
    assert list(found) == [Site(1), Site(2)]
    distances, cosines, lengths = [], [], []
    for window in held_out:
        ids = torch.tensor([window.ids])
        streams = []
        for splice in (False, True):
            with capture(model, [Site(2)], stop=False) as seen:
                if splice:
                    with spliced(model, {1: dictionary}, special_ids=special):
                        model(input_ids=ids)
                else:
                    model(input_ids=ids)
            streams.append(seen[Site(2)][0])
        kept = ~torch.isin(ids[0, :-1], torch.tensor(special))
        original, changed = (stream[:-1][kept] for stream in streams)
        distances += ((changed - original).norm(dim=1) / original.norm(dim=1)).tolist()
        cosines += torch.cosine_similarity(changed, original).tolist()
        lengths += (changed - original).norm(dim=1).tolist()
    sums = found[Site(2)]
    assert sums.tokens.sum() == len(distances)
    for mine, expected in (
        (sums.distance, distances),
        (sums.cosine, cosines),
        (sums.euclidean, lengths),
    ):
        mean = (mine["spliced"].sum() / sums.tokens.sum()).item()
        assert mean == pytest.approx(sum(expected) / len(expected), rel=1e-4)
        # nothing was fitted: adapted is spliced
        torch.testing.assert_close(mine["adapted"], mine["spliced"])
    # other tokens' streams are further away than the same tokens' spliced ones
    assert sums.distance[OTHER_TOKENS].sum() > 1.2 * sums.distance["spliced"].sum()
    assert sums.cosine[OTHER_TOKENS].sum() < sums.cosine["spliced"].sum()


def test_the_identity_splice_is_at_no_distance(tiny_model, identity_dictionary, cut, tokenizer):
    model = tiny_model()
    conditions = conditions_of(Spliced(model, {0: identity_dictionary}), {0: identity_dictionary})
    for sums in stream_distances(model, tokenizer, cut(tokenizer)[1], conditions, Site(0)).values():
        assert sums.distance["spliced"].abs().max() == 0
        torch.testing.assert_close(sums.cosine["spliced"], sums.tokens)


def test_a_fit_brings_the_last_stream_nearer(go, make, cut, tokenizer, tmp_path):
    dictionary = make()
    _, model = go({0: dictionary}, tokens=1200)
    opened = open_fitted(tmp_path / "out", model, {0: dictionary})
    conditions = conditions_of(opened, {0: dictionary})
    found = stream_distances(opened.module, tokenizer, cut(tokenizer)[1], conditions, Site(0))
    place = Key(adapter="r4", site="layers.0")
    estimates = distance_estimates(found, place)
    by_key = {(one.measure, one.key.site): one for one in estimates}
    assert len(by_key) == len(estimates) == 6 * 3
    # at the splice itself nothing after it can help
    at_site = by_key["adapt.distance_change", "layers.0"]
    assert at_site.value == pytest.approx(0, abs=1e-6)
    last = by_key["adapt.distance_change", "layers.2"]
    assert last.value != pytest.approx(0, abs=1e-3)
    cosine = by_key["adapt.cosine", "layers.2"]
    levels = {chance.name: chance.level for chance in cosine.nulls}
    assert set(levels) == {UNADAPTED, OTHER_TOKENS}
    change = by_key["adapt.cosine_change", "layers.2"].value
    assert cosine.value - levels[UNADAPTED] == pytest.approx(change, abs=1e-6)
    assert all(one.key.adapter == "r4" for one in estimates)

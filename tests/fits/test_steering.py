"""Steering: the change of the stream, the alignment of scores, the choice of α, the two groups."""

import math

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.activations.tokens import Window
from lorascope.errors import InputError
from lorascope.fits.conditions import conditions_of
from lorascope.fits.wrapper import Spliced
from lorascope.measures.steering import (
    EQUAL_DISPLACEMENT,
    LatentTexts,
    Steered,
    Steering,
    best_alpha,
    choose_texts,
    firing_texts,
    steer,
    steered,
    steering_estimates,
)
from lorascope.models.hooks import capture, run_until
from lorascope.models.sites import Site
from lorascope.results import Key


@pytest.fixture
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))


def window(ids, document=0):
    return Window(list(ids), [False] * len(ids), document)


def test_the_stream_is_steered_after_what_stands_there(tiny_model, make, tokens):
    model, dictionary = tiny_model(), make()
    v = dictionary.directions[3]
    wrapped = Spliced(model, {1: dictionary})
    with wrapped.splice():
        (x,) = run_until(model, [Site(1)], *tokens).values()
        with steered(model, Site(1), v, 0.5), capture(model, [Site(1)], stop=False) as seen:
            model(input_ids=tokens[0], attention_mask=tokens[1])
    expected = torch.stack([row + 0.5 * (row @ v) * v for row in x.reshape(-1, 32)])
    torch.testing.assert_close(seen[Site(1)].reshape(-1, 32), expected)
    assert (seen[Site(1)] - x).abs().max() > 0.1


def test_log_probabilities_stand_with_the_tokens_they_predict(tiny_model, make, tokenizer):
    model, dictionary = tiny_model(), make()
    texts = LatentTexts(
        [window([5, 9, 30, 12]), window([40, 41, 42]), window([7, 8, 9]), window([10, 11, 12])],
        [window([20 + n, 50, 6, 33, 21]) for n in range(4)],
    )
    conditions = conditions_of(Spliced(model, {1: dictionary}), {1: dictionary})
    chosen = {"spliced": conditions["original"]}
    settings = Steering(alphas=(1.0,), random=2)
    v = dictionary.directions[3]
    found = steer(model, tokenizer, texts, chosen, Site(1), 7 * v, settings)
    assert found.alphas == (0.0, 1.0)
    best = best_alpha(found, "spliced")
    own, others = found.scores["spliced"], found.random["spliced"]
    for number, text in enumerate(texts.all):
        for column, alpha in enumerate(found.alphas):
            if not texts.tuning[number] and alpha not in (0.0, best):
                assert math.isnan(own[column, number])
                continue
            ids = torch.tensor([text.ids])
            with torch.no_grad(), steered(model, Site(1), v, alpha):
                log_p = model(input_ids=ids).logits[0].log_softmax(-1)
            # the distribution at t is over the token at t + 1
            each = [log_p[t, text.ids[t + 1]].item() for t in range(len(text.ids) - 1)]
            mean = sum(each) / len(each)
            assert own[column, number].item() == pytest.approx(mean, rel=1e-4)
    assert (own[0] - own[1])[texts.tuning].abs().max() > 1e-3
    # Random directions move the stream elsewhere; unsteered nothing differs.
    assert others.shape == (2, 3, 8)
    assert all(torch.equal(one[0], own[0]) for one in others)
    assert not torch.allclose(others[0, 1, texts.tuning], own[1, texts.tuning])
    # One of the two signs is tested, and only one.
    tested = ~others[:, 1:, ~texts.tuning].isnan()
    assert (tested.sum(1) == 1).all()


def test_random_directions_displace_the_stream_as_far(tiny_model, make, tokens):
    model, dictionary = tiny_model(), make()
    v, u = dictionary.directions[3], dictionary.directions[8]
    (x,) = run_until(model, [Site(1)], *tokens).values()
    moved = []
    for along in (None, u):
        with (
            steered(model, Site(1), v, -0.7, along),
            capture(model, [Site(1)], stop=False) as seen,
        ):
            model(input_ids=tokens[0], attention_mask=tokens[1])
        moved.append(seen[Site(1)] - x)
    torch.testing.assert_close(moved[0].norm(dim=-1), moved[1].norm(dim=-1))
    torch.testing.assert_close(moved[1], -0.7 * (x @ v)[..., None] * u)


def test_texts_are_those_where_a_latent_fires_and_is_silent(tiny_model, make, cut, tokenizer):
    model, dictionary = tiny_model(), make("jumprelu")
    found = cut(tokenizer)[1]
    firing = firing_texts(model, tokenizer, found, Site(1), dictionary)
    assert firing.shape == (len(found), 96)
    special = torch.tensor(tokenizer.all_special_ids)
    for number in (0, 7):
        ids = torch.tensor([found[number].ids])
        (stream,) = run_until(model, [Site(1)], ids, torch.ones_like(ids)).values()
        latents = dictionary.encode(stream[0][~torch.isin(ids[0], special)])
        torch.testing.assert_close(firing[number], latents.amax(0), rtol=1e-3, atol=1e-3)
    counts = (firing > 0).sum(0)
    latent = int((counts - len(found) / 2).abs().argmin())
    texts = choose_texts(found, firing[:, latent], latent, Steering(texts=6))
    assert 4 <= len(texts.positive) <= 6
    places = [found.index(text) for text in texts.positive]
    strengths = firing[places, latent].tolist()
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[0] == firing[:, latent].max()
    assert all(firing[found.index(text), latent] == 0 for text in texts.negative)
    always = torch.ones(len(found))
    with pytest.raises(InputError, match="latent 5 is silent in 0 of 20 texts, steering needs 4"):
        choose_texts(found, always, 5, Steering())


TIMES = 5


def by_hand():
    """20 positive and 20 negative texts, α of 0, 1 and 2; tuning on every second text."""
    positive, negative = ([window([n, n, n]) for n in range(4 * TIMES)] for _ in range(2))

    def both(first, second):
        return torch.cat(
            [torch.tensor(half, dtype=torch.float64).repeat(TIMES) for half in (first, second)]
        )

    start = both([-2.0, -3.0, -2.0, -3.0], [-4.0, -6.0, -4.0, -6.0])
    # α = 1: positives + 1, the test ones + 0.5; negatives + 0. α = 2: positives + 3, negatives + 4
    one = start + both([1, 0.5, 1, 0.5], [0, -0.2, 0, -0.4])
    two = start + both([3.0] * 4, [4.0] * 4)
    better = start + both([2, 1.5, 2, 1.5], [-1, -0.2, -1, 0.0])
    scores = {
        "spliced": torch.stack([start, one, two]),
        "adapted": torch.stack([start, better, two]),
    }
    # Random directions: nothing at all, and one that lowers positives unless its sign is turned.
    nothing = torch.stack([start, start, start])
    turned = torch.stack(
        [start, start - both([0.04] * 4, [0.0] * 4), start + both([0.04] * 4, [0.0] * 4)]
    )
    random = torch.stack([nothing, turned])
    texts = LatentTexts(positive, negative)
    return Steered((0.0, 1.0, 2.0), texts, scores, dict.fromkeys(scores, random))


def test_alpha_raises_positives_and_leaves_negatives():
    found = by_hand()
    assert best_alpha(found, "spliced") == 1.0  # 1 − 0 beats 3 − 4
    assert best_alpha(found, "adapted") == 1.0  # 2, a fall of negatives is not counted against it


def test_changes_in_points_by_hand():
    found = {one.measure: one for one in steering_estimates(by_hand(), Key(dictionary="D"))}
    # the unsteered texts range over 4 nats/token: a quarter of 100 points each
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        {
            "steering.before_positive": 12.5,
            "steering.after_positive": 37.5,
            "steering.change_positive": 25.0,
            "steering.before_negative": -7.5,
            "steering.after_negative": -2.5,
            "steering.change_negative": 5.0,
        }
    )
    negative = found["steering.before_negative"]
    assert negative.n == 2 * TIMES
    assert negative.interval[0] < -7.5 < negative.interval[1]
    assert {one.nulls[0].name for one in found.values()} == {EQUAL_DISPLACEMENT}
    # 0 and 1 point on positive texts, of two draws; the fit changes neither.
    levels = [found[f"steering.{which}_positive"].chance for which in ("before", "after", "change")]
    assert levels == pytest.approx([0.5, 0.5, 0.0])
    assert found["steering.before_positive"].nulls[0].draws == 2
    assert found["steering.before_positive"].verdict == "above"
    assert found["steering.change_positive"].verdict == "above"

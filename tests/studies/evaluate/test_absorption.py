"""Absorption by hand, where a latent holds a letter, where one is absorbed, where nothing is."""

import random

import pytest
import torch

from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.models.load import read_tokenizer
from lorascope.models.sites import parse_site
from lorascope.results import Estimates, Key, null_names
from lorascope.studies.evaluate.absorption import (
    Letter,
    absorbed,
    absorption_fraction,
    f1_score,
    full_absorption,
    letter_estimates,
    letter_probes,
    main_latents,
)
from lorascope.studies.evaluate.letters import ASKED, Word, prompt, word_rows, words
from lorascope.studies.evaluate.settings import Absorption

SETTINGS = Absorption(probe_f1=0.6)


def test_both_formulas_by_hand():
    """Three words, projection 10 each; latent 0 is the main one, latents 1 to 4 lie along the probe
    with cosines 0.5, 0.2, 0.05, −0.5."""
    cosines = torch.tensor([1.0, 0.5, 0.2, 0.05, -0.5])
    codes = torch.tensor(
        [
            [0.0, 12.0, 5.0, 100.0, 3.0],  # silent main: 1 brings 6, 2 brings 1, 3 is no absorber
            [4.0, 12.0, 0.0, 0.0, 0.0],  # main brings 4, 1 brings 6 = all that is missing
            [0.0, 2.0, 0.0, 0.0, 0.0],  # 1 brings 1 of 10: too little
        ]
    )
    projection = torch.full((3,), 10.0)
    full, place = full_absorption(codes, cosines, projection, [0], SETTINGS)
    # of word 0 latent 1 writes 6 and latent 3 writes 5 along the probe
    assert place.tolist() == [1, 1, 1]
    assert full.tolist() == [True, False, False]
    fraction = absorption_fraction(codes, cosines, projection, [0], SETTINGS)
    assert fraction.tolist() == pytest.approx([1.0, 6 / 10, 0.0])
    # main brings all there is: nothing is absorbed, whatever the others write
    all_there = absorption_fraction(
        torch.tensor([[10.0, 12.0, 0.0, 0.0, 0.0]]), cosines, projection[:1], [0], SETTINGS
    )
    assert all_there.tolist() == [0.0]


def test_f1_by_hand():
    predicted = torch.tensor([True, True, True, False])
    true = torch.tensor([True, False, True, True])
    assert f1_score(predicted, true) == pytest.approx(2 * 2 / (3 + 3))
    assert f1_score(torch.tensor([False]), torch.tensor([False])) == 0.0


WIDTH, MANY = 24, 800


def alphabet():
    """(rows, letters, training words, words with the special feature): four letters along axes, and
    half of the words of letter 0 along axis 10 too."""
    draw = torch.Generator().manual_seed(0)
    letters = torch.randint(4, (MANY,), generator=draw)
    rows = 0.05 * torch.randn(MANY, WIDTH, generator=draw)
    rows[torch.arange(MANY), letters] += 2.0
    special = (letters == 0) & (torch.rand(MANY, generator=draw) < 0.3)
    rows[special, 10] += 2.0
    train = torch.rand(MANY, generator=draw) < 0.7
    return rows, letters, train, special


def axes(extra=()):
    """A latent for each of the axes 0 to 3 and 10; `extra` changes (encoder, directions)."""
    directions = torch.eye(WIDTH)[[0, 1, 2, 3, 10]]
    encoder = directions.T.clone()
    bias = torch.full((5,), -0.5)
    for change in extra:
        change(encoder, directions)
    return ReluDictionary(encoder, bias, directions, torch.zeros(WIDTH))


def test_latents_that_hold_the_letters_absorb_nothing():
    rows, letters, train, _ = alphabet()
    probes = letter_probes(rows, letters, train, 0.6)
    assert [one.letter for one in probes] == [0, 1, 2, 3]
    assert min(one.f1 for one in probes) > 0.99
    found = absorbed(axes(), rows, letters, train, probes, SETTINGS)
    assert [one.main for one in found] == [(0,), (1,), (2,), (3,)]
    assert [one.full for one in found] == [0.0] * 4
    assert [one.fraction for one in found] == pytest.approx([0.0] * 4)


def absorb(encoder, directions):
    """Where axis 10 is on, latent 0 is switched off and latent 4 writes its axis too."""
    encoder[10, 0] = -5.0
    directions[4] = torch.eye(WIDTH)[10] + torch.eye(WIDTH)[0]


def test_an_absorbed_letter_is_found_with_the_latent_that_absorbs_it():
    rows, letters, train, special = alphabet()
    probes = letter_probes(rows, letters, train, 0.6)
    # one main latent only, as the published metric finds where a split raises F1 by too little
    settings = Absorption(most=1)
    found = absorbed(axes([absorb]), rows, letters, train, probes, settings)
    hidden = special[probes[0].told].double().mean()
    assert float(hidden) > 0.1
    assert found[0].main == (0,)
    assert found[0].full == pytest.approx(float(hidden))
    assert found[0].fraction == pytest.approx(float(hidden), abs=0.02)
    assert set(found[0].absorbing) == {4}
    assert [one.full for one in found[1:]] == [0.0] * 3


def test_a_latent_that_raises_f1_enough_is_a_main_one_too():
    rows, letters, train, _ = alphabet()
    codes = axes([absorb]).encode(rows)
    assert main_latents(codes, letters == 0, train, SETTINGS) == (0, 4)
    assert main_latents(codes, letters == 0, train, Absorption(f1_jump=0.9)) == (0,)
    assert main_latents(codes, letters == 1, train, SETTINGS) == (1,)


def test_a_stream_without_letters_has_no_probe_to_look_at():
    rows, letters, train, _ = alphabet()
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(5))
    assert letter_probes(noise, letters, train, 0.6) == []


def test_means_are_over_letters_and_paired():
    own = [Letter(0, (1,), 0.5, 0.6, 10, {}), Letter(1, (2, 3), 0.1, 0.2, 10, {})]
    other = [Letter(0, (1,), 0.2, 0.2, 10, {}), Letter(1, (2,), 0.0, 0.0, 10, {})]
    table = Estimates(letter_estimates(own, {null_names.RANDOM_DECODER: other}, Key()))
    full = table.one("evaluate.absorption_full")
    assert full.value == pytest.approx(0.3)
    assert {null.name: null.level for null in full.nulls} == {
        null_names.NOTHING_CHANGED: 0.0,
        null_names.RANDOM_DECODER: pytest.approx(0.1),
    }
    beside = next(null for null in full.nulls if null.name == null_names.RANDOM_DECODER)
    half = 12.706205 * 0.1  # t with one degree of freedom times the standard error of 0.3 and 0.1
    assert beside.difference == pytest.approx((0.2 - half, 0.2 + half), rel=1e-5)
    assert table.one("evaluate.absorption_splits").value == 1.5


def test_words_and_prompts_come_from_the_vocabulary(subject, loaded, identity_dictionary):
    tokenizer = read_tokenizer("embedded")
    found = words(tokenizer, 300)
    assert len({word.token for word in found}) == 300
    for word in found[:50]:
        assert word.text.strip()[0].lower() == "abcdefghijklmnopqrstuvwxyz"[word.letter]
        assert tokenizer.decode([word.token]) == word.text
    ids, place = prompt(found[0], found, 3, tokenizer, random.Random(0))
    assert ids[place] == found[0].token
    text = tokenizer.decode(ids)
    assert text.endswith(found[0].text + ASKED)
    assert text.count(ASKED) == 4
    with pytest.raises(InputError, match="vocabulary spells 0 words"):
        words(loaded[1], 300)


def test_the_row_of_a_word_is_the_stream_at_its_token(subject, loaded, identity_dictionary):
    module, _ = loaded
    chosen = [Word(token, f"w{token}", 0) for token in range(5, 15)]
    site = parse_site("layers.1")
    rows = word_rows(
        subject({site.name: identity_dictionary}), chosen, 0, site, adapter=False, seed=0
    )
    draw = random.Random(0)
    for number in (0, 7):
        ids, place = prompt(chosen[number], chosen, 0, loaded[1], draw)
        with torch.no_grad():
            hidden = module(torch.tensor([ids]), output_hidden_states=True).hidden_states[2]
        assert torch.allclose(rows[number], hidden[0, place], atol=1e-5)

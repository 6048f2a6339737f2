"""TPP and SCR by hand, on planted classes, and where there is nothing to remove."""

import pytest
import torch

from lorascope.errors import InputError
from lorascope.results import Estimates, Key, null_names
from lorascope.studies.evaluate.pooling import STREAM
from lorascope.studies.evaluate.probing import OWN
from lorascope.studies.evaluate.settings import Spurious, Targeted
from lorascope.studies.evaluate.targeted import (
    LabelledRows,
    RemovedLatents,
    TrainedProbe,
    effects,
    scr_estimates,
    scr_scores,
    tpp_estimates,
    tpp_scores,
    train_probe,
    zeroed,
)
from lorascope.studies.evaluate.targeted_texts import scr_texts, tpp_texts

WIDTH = 12


def test_effects_by_hand():
    codes = torch.tensor([[3.0, 0.0, 1.0], [1.0, 2.0, 1.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]])
    labels = torch.tensor([1, 1, 0, 0])
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    probe = TrainedProbe(torch.tensor([0.5, -2.0]), 0.0)
    # means apart by 2, −1, 0; along the probe 0.5, −2, −1.5
    tpp = effects(codes, labels, directions, probe, signed=True)
    assert tpp.tolist() == pytest.approx([1.0, 0.0, 0.0])
    scr = effects(codes, labels, directions, probe, signed=False)
    assert scr.tolist() == pytest.approx([1.0, 2.0, 0.0])


def test_zeroing_takes_away_what_the_latents_write():
    stream = torch.tensor([[5.0, 5.0]])
    codes = torch.tensor([[2.0, 3.0, 1.0]])
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    strength = torch.tensor([0.5, 2.0, 0.0])
    assert zeroed(stream, codes, directions, strength, 1).tolist() == [[5.0, 2.0]]
    assert zeroed(stream, codes, directions, strength, 2).tolist() == [[3.0, 2.0]]
    # latents without any effect are not zeroed, however many are asked for
    assert zeroed(stream, codes, directions, strength, 3).tolist() == [[3.0, 2.0]]


def four_classes(known):
    """Rows of three classes with an axis each and of one with none; a dictionary with one latent an
    axis, or one of noise."""
    draw = torch.Generator().manual_seed(0)
    marks = torch.arange(400) % 4
    stream = 0.1 * torch.randn(400, WIDTH, generator=draw)
    stream[torch.arange(400), marks] += 2.0 * (marks < 3)
    noise = torch.randn(WIDTH, WIDTH, generator=draw)
    noise /= noise.norm(dim=1, keepdim=True)
    codes = {OWN: stream.clamp(min=0), null_names.RANDOM_DECODER: (stream @ noise.T).clamp(min=0)}
    directions = {OWN: torch.eye(WIDTH), null_names.RANDOM_DECODER: noise}
    if not known:
        codes[OWN], directions[OWN] = codes[null_names.RANDOM_DECODER], noise
    every = {STREAM: stream, **codes}
    parts = ({k: x[:240] for k, x in every.items()}, {k: x[240:] for k, x in every.items()})
    return LabelledRows(*parts, directions), (marks[:240], marks[240:])


QUICK = Targeted(n=(1,), epochs=15, rate=2e-2)


def test_a_latent_for_each_class_matters_to_that_class_alone():
    """Without its axis a class looks like the one that has none; the others' axes are there."""
    found = tpp_scores(*four_classes(True), QUICK, 0)
    own, other = found[OWN, 1], found[null_names.RANDOM_DECODER, 1]
    assert own[:3].min() > 0.3
    assert abs(float(own[3])) < 0.2
    one = Estimates(tpp_estimates(found, Key())).one("evaluate.tpp", size=1)
    assert one.value == pytest.approx(float(own.mean()))
    levels = {null.name: null.level for null in one.nulls}
    assert levels == {
        null_names.NOTHING_CHANGED: 0.0,
        null_names.RANDOM_DECODER: pytest.approx(float(other.mean())),
    }
    assert float(other.mean()) < 0.5 * one.value


def test_random_latents_matter_to_no_class_more_than_random_ones():
    found = tpp_scores(*four_classes(False), QUICK, 0)
    one = Estimates(tpp_estimates(found, Key())).one("evaluate.tpp", size=1)
    assert one.verdict != "above"


def attributes(width=WIDTH, known=True, seed=0):
    """A label along axes 0 (yes) and 3 (no), a stronger spurious attribute along 1 and 2; the
    dictionary has these axes if `known`, else random directions of its own."""
    draw = torch.Generator().manual_seed(seed)
    label, spurious = torch.arange(400) % 2, (torch.arange(400) // 2) % 2
    stream = 0.3 * torch.randn(400, width, generator=draw)
    for axis, on in ((0, label), (3, 1 - label), (1, 4 * spurious), (2, 4 * (1 - spurious))):
        stream[:, axis] += on
    noise = torch.randn(width, width, generator=draw)
    noise /= noise.norm(dim=1, keepdim=True)
    own = torch.eye(width)
    if not known:
        own = torch.randn(width, width, generator=draw)
        own /= own.norm(dim=1, keepdim=True)
    directions = {OWN: own, null_names.RANDOM_DECODER: noise}
    every = {name: (stream @ one.T).clamp(min=0) for name, one in directions.items()}
    every[STREAM] = stream
    parts = ({k: x[:240] for k, x in every.items()}, {k: x[240:] for k, x in every.items()})
    rows = LabelledRows(*parts, directions)
    return rows, (label[:240], spurious[:240]), (label[240:], spurious[240:])


SPURIOUS = Spurious(n=(2,), epochs=30, rate=2e-2)


def test_a_spurious_attribute_in_two_latents_is_removed():
    found = scr_scores(*attributes(), SPURIOUS, 0)
    # trained where both go together, the probe reads the stronger one
    assert float(found.before.mean()) < 0.7
    assert float(found.clean.mean()) > 0.9
    one = Estimates(scr_estimates(found, Key())).one("evaluate.scr", size=2)
    assert one.value > 0.6
    random = next(null for null in one.nulls if null.name == null_names.RANDOM_DECODER)
    assert random.level < one.value


def test_random_latents_remove_no_more_than_random_ones():
    settings = SPURIOUS.model_copy(update={"n": (2, 8)})
    for seed in range(5):
        found = scr_scores(*attributes(96, False, seed), settings, seed)
        verdicts = {one.verdict for one in scr_estimates(found, Key())}
        assert "above" not in verdicts
    # The same rows, where the dictionary has the attribute's axes.
    known = Estimates(scr_estimates(scr_scores(*attributes(96), SPURIOUS, 0), Key()))
    assert known.one("evaluate.scr", size=2).verdict == "above"


def test_scr_by_hand():
    before = torch.tensor([1.0, 0.0, 0.0, 0.0] * 4)
    clean = torch.tensor([1.0, 1.0, 1.0, 0.0] * 4)
    after = {(OWN, 2): torch.tensor([1.0, 1.0, 0.0, 0.0] * 4)}
    one = Estimates(scr_estimates(RemovedLatents(before, clean, after), Key())).one("evaluate.scr")
    assert one.value == pytest.approx((0.5 - 0.25) / (0.75 - 0.25))
    with pytest.raises(InputError, match="as good"):
        scr_estimates(RemovedLatents(before, before, after), Key())


def test_tpp_by_hand():
    """Two classes: own losses 0.4 and 0.2, others' 0.1 and 0: TPP is the mean of 0.3 and 0.2."""
    found = {(OWN, 2): torch.tensor([0.3, 0.2]), (null_names.RANDOM_DECODER, 2): torch.zeros(2)}
    one = Estimates(tpp_estimates(found, Key())).one("evaluate.tpp", size=2)
    assert one.value == pytest.approx(0.25)
    assert one.n == 2


def test_a_probe_learns_and_the_same_seed_gives_the_same():
    rows, train, test = attributes()
    first = train_probe(rows.train[STREAM], train[1], QUICK, 0)
    again = train_probe(rows.train[STREAM], train[1], QUICK, 0)
    assert torch.equal(first.weight, again.weight)
    assert float(first.right(rows.test[STREAM], test[1]).mean()) > 0.95


def test_texts_of_the_package_and_of_a_table(tmp_path):
    (texts, marks), (other, _) = tpp_texts(Targeted(train=40, test=20), 0)
    assert len(texts) == 200
    assert {one for (one,) in marks} == {0, 1, 2, 3, 4}
    assert not set(texts) & set(other)
    (texts, marks), _ = scr_texts(Spurious(train=20, test=16), 0)
    assert len(texts) == 80
    assert {pair: marks.count(pair) for pair in set(marks)} == {
        (0, 0): 20,
        (0, 1): 20,
        (1, 0): 20,
        (1, 1): 20,
    }
    path = tmp_path / "mine.csv"
    path.write_text("text,label,spurious\n" + "\n".join(f"t{i},{i % 2},1" for i in range(80)))
    with pytest.raises(InputError, match="all four pairs"):
        scr_texts(Spurious(source=str(path)), 0)
    path.write_text("text,label\na,1\n")
    with pytest.raises(InputError, match="needs columns text, label and spurious"):
        scr_texts(Spurious(source=str(path)), 0)

"""Pairs one by one: by hand, and found where relations were planted."""

import pytest
import torch

from lorascope.activations.tokens import Window
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.latent_adapters.adapter import LatentAdapter, Relation
from lorascope.latent_adapters.pair_frontier import carried_estimates, drawn, heaviest, kept_pairs
from lorascope.latent_adapters.pairs import only
from lorascope.latent_adapters.readable import _auc, style_tokens
from lorascope.latent_adapters.reading import ActiveLatents
from lorascope.latent_adapters.sparsity import Fixed
from lorascope.results import Key


@pytest.fixture
def adapter():
    """Over four latents along the axes: reads 0 and 1, writes 2 and 3, s = 2."""
    eye = torch.eye(4)
    dictionary = ReluDictionary(eye, torch.zeros(4), eye, torch.zeros(4), subtract_bias=False)
    found = LatentAdapter(dictionary, 1, Fixed())
    found.read.data = torch.tensor([[0.8, 0.6, 0.0, 0.0]])
    found.write.data = torch.tensor([[0.0, 0.0, 1.0, 0.1]])
    found.scale.data = torch.tensor([2.0])
    return found


def test_one_pair_by_hand(adapter):
    x = torch.tensor([[1.0, 2.0, 0.0, 0.0]])
    whole = adapter(x)
    assert torch.allclose(whole, torch.tensor([[1.0, 2.0, 4.0, 0.4]]))  # 2 (0.8 + 1.2) (1, 0.1)
    (pair,) = heaviest(adapter, 1)
    assert (pair.read, pair.written) == (0, 2)
    assert pair.weight == pytest.approx(1.6)
    assert torch.allclose(only(adapter, [pair])(x), torch.tensor([[1.0, 2.0, 1.6, 0.0]]))
    assert torch.allclose(only(adapter, adapter.pairs(None))(x), whole)
    mask = torch.tensor([False])
    assert torch.equal(only(adapter, [pair])(x, mask), x)


def test_share_of_the_effect_by_hand(adapter):
    x = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    codes = ActiveLatents.of(adapter.dictionary, x)
    found = carried_estimates(adapter, adapter, codes, (1, 2, 9), 3, Key("a", 1, seed=0))
    # Δ: (1.6, 0.16) and (1.2, 0.12); all of the first pair is 1.6² of the sum of squares.
    total = (1.6**2 + 1.2**2) * 1.01
    assert [one.key.size for one in found] == [1, 2, 4]
    assert found[0].value == pytest.approx(1.6**2 / total)
    assert found[1].value == pytest.approx((1.6**2 + 1.2**2) / total)
    assert found[2].value == pytest.approx(1.0)
    assert found[0].nulls[0].level < found[0].value
    assert [null.name for null in found[2].nulls] == ["nothing written"]


def test_pairs_at_random_are_pairs_of_the_adapter(adapter):
    known = set(adapter.pairs(None))
    some = drawn(adapter, 3, 0, 1)
    assert len(set(some)) == 3
    assert set(some) <= known
    assert drawn(adapter, 3, 0, 1) == some
    assert len({tuple(drawn(adapter, 1, 0, draw)) for draw in range(20)}) > 1


def test_what_few_pairs_keep_by_hand():
    dense, untouched = [True] * 8 + [False] * 2, [False] * 10
    one = kept_pairs([True] * 4 + [False] * 6, dense, untouched, [untouched] * 3, Key("a", 1))
    assert one.value == 0.5
    assert {null.name for null in one.nulls} == {"random pairs", "untouched model"}
    assert one.verdict == "above"
    assert kept_pairs(dense, untouched, untouched, [], Key("a", 1)) is None


def test_area_under_the_curve_by_hand():
    about = torch.tensor([True, True, False, False])
    values = torch.tensor([[3.0, 0.0, 1.0], [2.0, 0.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 0.0]])
    # All above, all below, as often above as below.
    assert _auc(values, about).tolist() == [1.0, 1.0, 0.5]


def test_style_tokens_are_those_of_changed_responses():
    def window(ids):
        return Window([1, *ids], [False] + [True] * len(ids), 0)

    changed, others = [window([5, 6, 6, 7])] * 20, [window([5, 8, 8, 9])] * 20
    assert set(style_tokens(changed, others, [7], 10).tolist()) == {6}
    assert style_tokens(others, others, [], 10).tolist() == []


def test_a_pair_has_a_name():
    assert Relation(1, 2, 0.5)._asdict() == {"read": 1, "written": 2, "weight": 0.5}

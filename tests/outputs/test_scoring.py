"""What an adapter does to the outputs, against loops that go window by window."""

import math

import pytest
import torch

from lorascope.activations.settings import Capture
from lorascope.activations.tokens import Window, pad
from lorascope.errors import InputError
from lorascope.measures.definitions.causes import DEFINITIONS
from lorascope.measures.surveys import Survey, change_estimates, survey
from lorascope.models.adapted import load
from lorascope.models.freezing import fingerprint
from lorascope.outputs import scoring
from lorascope.outputs.scoring import (
    Floor,
    Outcome,
    disagreement,
    divergence,
    first_documents,
    parts_in_cache,
    scored,
)
from lorascope.results import Key

NO, YES = False, True
WINDOWS = [
    Window([0, 11, 12, 13, 14, 1], [NO, NO, NO, YES, YES, YES], 0),
    Window([0, 20, 21, 22], [NO, NO, YES, YES], 2),
    Window([0, 30, 31], [NO, NO, YES], 1),
    # The first token has nothing before it.
    Window([32, 33, 34, 35], [YES, YES, YES, YES], 1),
]
PLAIN = [Window(w.ids, [NO] * len(w.ids), w.document) for w in WINDOWS]


@pytest.fixture(scope="module")
def model(tiny_checkpoint, save_adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    paths = {
        "a": save_adapter(folder / "a", target_modules=["q_proj", "up_proj"]),
        "faint": save_adapter(folder / "faint", lora_alpha=1e-8, target_modules=["up_proj"]),
    }
    return load(str(tiny_checkpoint()), {n: str(p) for n, p in paths.items()}, device="cpu")


def test_parts_that_fit_a_cache_change_no_bit(monkeypatch):
    """One reference for several others, as latents taken away have it."""
    random = torch.Generator().manual_seed(0)
    one = torch.randn(1, 11, 40, generator=random).log_softmax(-1)
    several = torch.randn(3, 11, 40, generator=random).log_softmax(-1)
    pairs = ((one, several), (several, one), (several, several), (one[0], several[1]))
    whole = [divergence(p, q) for p, q in pairs]
    assert [tuple(kl.shape) for kl in whole] == [(3, 11), (3, 11), (3, 11), (11,)]
    for p, q, kl in zip(*zip(*pairs, strict=True), whole, strict=True):
        plain = (p.double().exp() * (p.double() - q.double())).sum(-1)
        assert torch.allclose(kl.double(), plain, atol=1e-5)
    for most in (1, 200, 600):
        monkeypatch.setattr(scoring, "_AT_ONCE", {"cpu": most})
        assert parts_in_cache(several) > 1
        assert all(
            torch.equal(divergence(p, q), kl) for (p, q), kl in zip(pairs, whole, strict=True)
        )


@torch.no_grad()
def naive(model, windows, counts):
    """Tokens, losses of both variants and KL(adapted ‖ base) by document."""
    sums = {}
    for window in windows:
        logs = {}
        for variant in ("base", "a"):
            with model.variant(variant) as module:
                logits = module(input_ids=torch.tensor([window.ids])).logits[0]
            logs[variant] = torch.log_softmax(logits.double(), -1)
        for t in range(1, len(window.ids)):
            if counts(window, t):
                base, adapted = logs["base"][t - 1], logs["a"][t - 1]
                target = window.ids[t]
                kl = (adapted.exp() * (adapted - base)).sum()
                other = (adapted.argmax() != base.argmax()).double()
                losses = [-base[target], -adapted[target]]
                new = torch.stack([torch.ones(()).double(), *losses, kl, other])
                sums[window.document] = sums.get(window.document, 0) + new
    return torch.stack([sums[d] for d in sorted(sums)]).T


def as_rows(found):
    losses = [found.base.loss, found.adapted.loss]
    return torch.stack([found.tokens, *losses, found.base.kl, found.base.greedy])


@pytest.mark.parametrize("batch_tokens", [8, 4096])
def test_sums_are_those_of_a_loop_over_tokens(model, batch_tokens):
    found = survey(model, "a", WINDOWS, ["layers.1"], capture=Capture(batch_tokens=batch_tokens))
    expected = naive(model, WINDOWS, lambda w, t: w.response[t] and w.ids[t - 1] > 2)
    assert found.responses
    assert found.tokens.tolist() == [3, 4, 2]
    torch.testing.assert_close(as_rows(found), expected, rtol=1e-4, atol=1e-6)
    assert found.adapted.kl.tolist() == found.adapted.greedy.tolist() == [0, 0, 0]
    assert found.base.greedy.sum() > 0


def test_all_ordinary_tokens_count_where_texts_have_no_responses(model):
    found = survey(model, "a", PLAIN, ["layers.1"])
    expected = naive(model, PLAIN, lambda w, t: w.ids[t] > 2 and w.ids[t - 1] > 2)
    assert not found.responses
    assert found.tokens.tolist() == [3, 4, 2]
    torch.testing.assert_close(as_rows(found), expected, rtol=1e-4, atol=1e-6)


def test_scored_positions_by_hand(model):
    batch = pad(WINDOWS, model.tokenizer, 1)
    found = scored(batch, responses=True)
    assert found.predicting.int().tolist() == [
        [0, 0, 1, 1, 1],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
    ]
    assert found.wanted[:, :-1].equal(found.predicting)
    assert not found.wanted[:, -1].any()
    assert found.targets.tolist() == [13, 14, 1, 21, 22, 31, 33, 34, 35]
    assert found.documents.tolist() == [0, 0, 0, 2, 2, 1, 1, 1, 1]
    assert scored(pad(PLAIN, model.tokenizer, 1), responses=True) is None
    special = scored(batch, responses=False, keep_special=True)
    assert int(special.predicting.sum()) == 5 + 3 + 2 + 3


def test_divergence_by_hand_and_far_below_rounding():
    p = torch.tensor([[0.5, 0.25, 0.25]]).log()
    q = torch.tensor([[0.25, 0.25, 0.5]]).log()
    assert divergence(p, q).item() == pytest.approx(0.25 * math.log(2), rel=1e-6)
    assert divergence(p, p).item() == 0.0
    steep = torch.log_softmax(torch.tensor([[0.0, -200.0]]), -1)
    assert divergence(p[:, :2].log_softmax(-1), steep).isfinite().all()
    # A shift of 1e-4 in one logit of 1,000: KL = p(1 − p) 1e-8 / 2, where log p itself is
    # rounded to 5e-7.
    logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0))
    other = logits.clone()
    other[0, 3] += 1e-4
    share = logits.double().softmax(-1)[0, 3].item()
    small = divergence(logits.log_softmax(-1), other.log_softmax(-1)).item()
    assert small == pytest.approx(share * (1 - share) * 0.5e-8, rel=0.1)


def test_greedy_choices_by_hand():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
    q = torch.tensor([[0.4, 0.35, 0.25], [0.2, 0.3, 0.5]])
    assert disagreement(p.log(), q.log()).tolist() == [False, True]


def test_change_estimates_by_hand():
    def outcome(*sums):
        return Outcome(*(torch.tensor(each).double() for each in sums))

    found = Survey(
        "a",
        Capture(),
        [],
        True,
        torch.tensor([3.0, 1.0]).double(),
        outcome([6.0, 4.0], [1.5, 0.5], [2.0, 1.0]),
        outcome([3.0, 3.0], [0.0, 0.0], [0.0, 0.0]),
        Floor(0.001, 1e-6, 0.01),
        {},
        {},
    )
    loss, kl, greedy = change_estimates(found, Key("a", 4))
    assert loss.value == pytest.approx((6 - 10) / 4)
    assert all(math.isnan(bound) for bound in loss.interval)
    assert (loss.nulls[0].low, loss.nulls[0].high) == (-0.001, 0.001)
    assert loss.verdict == "no verdict"
    assert kl.value == pytest.approx(0.5)
    assert kl.chance == 1e-6
    assert (kl.n, kl.key.adapter) == (4, "a")
    assert (greedy.value, greedy.chance, greedy.verdict) == (0.75, 0.01, "no verdict")
    for estimate in (loss, kl, greedy):
        assert estimate.unit == DEFINITIONS[estimate.measure].unit


def test_an_adapter_that_changes_nothing_is_said_to(model):
    found = survey(model, "faint", WINDOWS, ["layers.1"])
    assert change_estimates(found, Key())[1].value < 1e-10
    with pytest.raises(InputError, match='"faint": its outputs equal the base'):
        found.require_effect()
    live = survey(model, "a", WINDOWS, ["layers.1"])
    assert 0 < live.floor.kl < 1e-9 < 1e-3 < change_estimates(live, Key())[1].value
    live.require_effect()


def test_the_pool_holds_the_deltas_of_ordinary_rows_by_document(model):
    found = survey(model, "a", WINDOWS, ["layers.2", "layers.0"])
    assert [site.name for site in found.pool] == ["layers.0", "layers.2"]
    for deltas, documents in found.pool.values():
        assert documents.tolist() == sorted(documents.tolist())
        assert deltas.shape == (13, 32)
        assert deltas.norm(dim=1).min() > 0
    # A multiple of 1: half the rows lie above the median at one site or another.
    strict = survey(model, "a", WINDOWS, ["layers.0"], capture=Capture(outlier_multiple=1.0))
    assert len(strict.pool[next(iter(strict.pool))][1]) == 7


def test_documents_up_to_a_number_of_tokens_and_at_least_twenty():
    # Fewer than twenty: all of them, whatever they hold.
    assert [w.document for w in first_documents(WINDOWS, 1)] == [0, 2, 1, 1]
    many = [Window(list(range(10)), [False] * 10, document) for document in range(40)]
    assert len(first_documents(many, 1)) == 20
    assert len(first_documents(many, 255)) == 25
    assert len(first_documents(many, 1000)) == 40


def test_long_documents_are_cut_so_that_twenty_share_the_tokens():
    long = [Window(list(range(100)), [False] * 100, 0), Window(list(range(30)), [False] * 30, 1)]
    long += [Window(list(range(50)), [False] * 40 + [True] * 10, document) for document in (2, 3)]
    # A twentieth of 400 is 20; ten more tokens where a response begins after 40.
    lengths = [(w.document, len(w.ids)) for w in first_documents(long, 400)]
    assert lengths == [(0, 20), (1, 20), (2, 50), (3, 50)]
    later = [Window(list(range(90)), [False] * 40 + [True] * 50, 0)]
    assert [len(w.ids) for w in first_documents(later, 400)] == [50]
    # The second window of a document gets what the first one left.
    parts = [Window(list(range(12)), [False] * 12, 0), Window(list(range(12)), [False] * 12, 0)]
    assert [len(w.ids) for w in first_documents(parts, 400)] == [12, 8]


def test_the_survey_leaves_the_model_as_it_was(model):
    before = fingerprint(model.module)
    survey(model, "a", WINDOWS, ["layers.1"])
    assert fingerprint(model.module) == before
    assert model.current == "base"
    assert not model.module.training


def test_nothing_to_score(model):
    with pytest.raises(InputError, match="no token to score"):
        survey(model, "a", [Window([0, 5], [NO, NO], 0)], ["layers.1"])
    with pytest.raises(InputError, match="no adapter named"):
        survey(model, "b", WINDOWS, ["layers.1"])

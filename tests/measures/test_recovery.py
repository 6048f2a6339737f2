"""Functional recovery by hand, against hooks on the whole model, and on planted adapters."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.activations.settings import Capture
from lorascope.activations.tokens import Window
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic, random_rotation
from lorascope.measures.definitions.causes import DEFINITIONS
from lorascope.measures.recovery import (
    EXACT,
    RECONSTRUCTION,
    ROTATED,
    SplicedOutcomes,
    of_other_documents,
    recovery_estimates,
    rotated_at_equal_l0,
    splice,
)
from lorascope.measures.surveys import Survey, survey
from lorascope.models.adapted import load
from lorascope.models.freezing import fingerprint
from lorascope.models.hooks import replace, run_until
from lorascope.models.sites import Site
from lorascope.outputs.scoring import Floor, Outcome
from lorascope.randomness import generator
from lorascope.results import Key

D = 32
SITES = ("layers.0", "layers.1", "layers.2")
U = isotropic(2, D, torch.Generator().manual_seed(5))
DIRECTION = U[0]
ORTHOGONAL = torch.nn.functional.normalize(U[1] - (U[1] @ U[0]) * U[0], dim=0)


def texts(documents, length, seed=0):
    """Windows of random words, no special tokens, the second half of each a response."""
    ids = torch.randint(3, 60, (documents, length), generator=torch.Generator().manual_seed(seed))
    half = length // 2
    return [
        Window(row.tolist(), [False] * half + [True] * (length - half), document)
        for document, row in enumerate(ids)
    ]


WINDOWS = texts(12, 10)
# Special tokens (0 to 2), windows of unequal length, a document of two windows.
MIXED = [
    Window([0, 11, 12, 13, 14, 1], [False, False, False, True, True, True], 0),
    Window([0, 30, 31, 9], [False, False, True, True], 1),
    Window([32, 2, 34, 35, 36], [True, True, True, True, True], 1),
    Window([0, 20, 21], [False, False, True], 2),
]


@pytest.fixture(scope="module")
def model(tiny_checkpoint, save_adapter, tmp_path_factory):
    """Adapters on every block, on the first alone, one that is too faint, and a planted one."""
    folder = tmp_path_factory.mktemp("adapters")
    both = ["q_proj", "up_proj"]
    paths = {
        "whole": save_adapter(folder / "whole", target_modules=both),
        "early": save_adapter(folder / "early", target_modules=both, layers_to_transform=[0]),
        "faint": save_adapter(folder / "faint", lora_alpha=1e-8, target_modules=both),
        "planted": save_adapter(
            folder / "planted", r=1, target_modules=["down_proj"], layers_to_transform=[1]
        ),
    }
    weights = paths["planted"] / "adapter_model.safetensors"
    tensors = load_file(weights)
    (key,) = [name for name in tensors if "lora_B" in name]
    tensors[key] = DIRECTION[:, None].clone()
    save_file(tensors, weights, metadata={"format": "pt"})
    return load(str(tiny_checkpoint()), {n: str(p) for n, p in paths.items()}, device="cpu")


def signed(direction, bias=None):
    """A dictionary that rebuilds exactly what lies along one direction."""
    both = torch.stack([direction, -direction])
    return ReluDictionary(
        both.T, torch.zeros(2), both, torch.zeros(D) if bias is None else torch.tensor(bias)
    )


def silent():
    return ReluDictionary(torch.zeros(D, 4), torch.zeros(4), torch.eye(D)[:4], torch.zeros(D))


def place(site, name="delta"):
    return Key("a", 4, site, 0, name)


def spliced(model, adapter, windows, dictionaries, sites=SITES, differences=None, **named):
    found = survey(model, adapter, windows, sites, **named)
    means = {site: torch.zeros(D) for site in sites}
    return splice(model, found, dictionaries, differences or {}, means, repeats=2)


def values(estimates, measure):
    return {(e.key.site, e.key.dictionary): e for e in estimates if e.measure == measure}


def outcome(loss, kl):
    none = torch.zeros(len(loss)).double()
    return Outcome(torch.tensor(loss).double(), torch.tensor(kl).double(), none)


def by_hand(base, adapted, exact, controls, reconstruction, tokens=(4.0, 1.0)):
    found = Survey(
        "a",
        Capture(),
        [],
        True,
        torch.tensor(tokens).double(),
        base,
        adapted,
        Floor(0, 0, 0),
        {},
        {},
    )
    written = {place("layers.1"): {RECONSTRUCTION: [reconstruction], **controls}}
    return SplicedOutcomes(found, {"layers.1": exact}, {"layers.1": {}}, written)


def test_recovery_by_hand():
    base, adapted = outcome([10.0, 4.0], [3.0, 1.0]), outcome([6.0, 2.0], [0.0, 0.0])
    controls = {
        "decoder bias alone": [outcome([10.0, 3.4], [3.5, 1.5])],
        ROTATED: [outcome([9.0, 4.0], [2.8, 1.0]), outcome([9.4, 4.0], [3.0, 0.8])],
    }
    found = by_hand(
        base, adapted, outcome([6.0, 2.0], [0.0, 0.0]), controls, outcome([7.0, 3.0], [1.5, 0.7])
    )
    estimates = recovery_estimates(found, Key("a", 4))
    loss, kl = (values(estimates, f"recovery.{m}")["layers.1", "delta"] for m in ("loss", "kl"))
    # (14 − 10) / (14 − 8), and 1 − 2.2 / 4
    assert loss.value == pytest.approx(4 / 6)
    assert kl.value == pytest.approx(0.45)
    assert all(math.isnan(bound) for e in (loss, kl) for bound in e.interval)
    levels = {c.name: c.level for c in loss.nulls}
    assert levels["decoder bias alone"] == pytest.approx(0.6 / 6)
    # (14 − 13) / 6 and (14 − 13.4) / 6
    assert levels[ROTATED] == pytest.approx((1.0 + 0.6) / 12)
    assert levels["nothing"] == 0.0
    levels = {c.name: c.level for c in kl.nulls}
    assert levels["decoder bias alone"] == pytest.approx(1 - 5 / 4)
    assert levels[ROTATED] == pytest.approx((0.2 + 0.2) / 8)
    for estimate in estimates:
        assert estimate.unit == DEFINITIONS[estimate.measure].unit
        highs = [chance.high for chance in estimate.nulls]
        assert highs == sorted(highs, reverse=True)
        assert estimate.n == 5
    assert values(estimates, "recovery.kl")["layers.1", EXACT].value == 1.0
    # Both documents lose 0.1 or 0.15 of it: the draws' own spread is the wider.
    rotated = next(c for c in loss.nulls if c.name == ROTATED)
    assert rotated.low < 0.0 < rotated.level < rotated.high


def test_loss_is_left_out_where_its_change_may_be_nothing():
    base, kl = outcome([10.0, 4.0] * 6, [3.0, 1.0] * 6), [0.0] * 12
    adapted = outcome([6.0, 7.0] * 6, kl)
    found = by_hand(base, adapted, adapted, {}, base, [4.0, 1.0] * 6)
    estimates = recovery_estimates(found, Key("a", 4))
    assert [e.measure for e in estimates] == ["recovery.kl", "recovery.kl"]


def test_an_adapter_that_makes_loss_worse_is_recovered_with_the_same_sign():
    base, adapted = outcome([6.0, 2.0], [3.0, 1.0]), outcome([10.0, 4.0], [0.0, 0.0])
    found = by_hand(base, adapted, adapted, {}, outcome([9.0, 3.0], [1.0, 1.0]))
    estimates = values(recovery_estimates(found, Key("a", 4)), "recovery.loss")
    assert estimates["layers.1", EXACT].value == 1.0
    assert estimates["layers.1", "delta"].value == pytest.approx(4 / 6)


def test_exact_delta_and_nothing_are_the_two_faces_bit_for_bit(model):
    nothing = {place(site): silent() for site in SITES}
    found = spliced(model, "whole", WINDOWS, nothing)
    assert found.survey.base.kl.min() > 1e-2
    assert found.exact["layers.2"].kl.tolist() == [0.0] * 12
    assert torch.equal(found.exact["layers.2"].loss, found.survey.adapted.loss)
    for written in found.dictionaries.values():
        (one,) = written[RECONSTRUCTION]
        assert torch.equal(one.loss, found.survey.base.loss)
        assert torch.equal(one.kl, found.survey.base.kl)
    kl = values(recovery_estimates(found, Key("a", 4)), "recovery.kl")
    assert kl["layers.2", EXACT].value == 1.0
    assert kl["layers.2", EXACT].verdict == "above"
    assert kl["layers.1", "delta"].value == 0.0
    assert kl["layers.1", "delta"].verdict != "above"


def test_the_ceiling_is_one_only_where_no_later_block_is_adapted(model):
    ceilings = {}
    for adapter in ("whole", "early"):
        found = recovery_estimates(spliced(model, adapter, WINDOWS, {}), Key(adapter))
        ceilings[adapter] = [values(found, "recovery.kl")[site, EXACT].value for site in SITES]
    assert ceilings["early"] == [1.0, 1.0, 1.0]
    assert ceilings["whole"][0] < 0.9
    assert ceilings["whole"][1] < 0.99
    assert ceilings["whole"][2] == 1.0


@torch.no_grad()
def naive(model, adapter, site, predict, limit=torch.inf):
    """Loss and KL by document, window by window, with a hook on the whole model."""
    sums = torch.zeros(2, 3, dtype=torch.float64)
    for window in MIXED:
        ids = torch.tensor([window.ids])
        streams, logs = {}, {}
        for variant in ("base", adapter):
            with model.variant(variant) as module:
                streams[variant] = run_until(module, [site], ids)[site]
                logs[variant] = torch.log_softmax(module(input_ids=ids).logits[0].double(), -1)
        base = streams["base"]
        written = predict(base, streams[adapter])
        kept = (ids > 2) & (base.norm(dim=-1) <= limit)
        new = torch.where(kept[..., None], base + written, base)
        with model.variant("base") as module, replace(module, site, lambda _, new=new: new):
            log_p = torch.log_softmax(module(input_ids=ids).logits[0].double(), -1)
        for t in range(1, len(window.ids)):
            if window.response[t] and window.ids[t - 1] > 2:
                p = logs[adapter][t - 1]
                sums[0, window.document] -= log_p[t - 1, window.ids[t]]
                sums[1, window.document] += (p.exp() * (p - log_p[t - 1])).sum()
    return sums


@pytest.mark.parametrize("batch_tokens", [8, 4096])
def test_outcomes_are_those_of_a_loop_with_hooks(model, batch_tokens):
    random = generator(0, "dictionary")
    dictionary = ReluDictionary(
        *(torch.randn(s, generator=random) for s in ((D, 9), (9,), (9, D), (D,)))
    )
    here = place("layers.1")
    found = spliced(
        model,
        "whole",
        MIXED,
        {here: dictionary},
        ("layers.1",),
        {place("layers.1", "base difference"): dictionary},
        capture=Capture(batch_tokens=batch_tokens),
    )
    own = found.dictionaries[here]
    difference = found.dictionaries[place("layers.1", "base difference")]
    for (one,), predict in (
        ([found.exact["layers.1"]], lambda b, a: a - b),
        (own[RECONSTRUCTION], lambda b, a: dictionary(a - b)),
        (own["decoder bias alone"], lambda b, a: dictionary.decoder_bias),
        (difference[RECONSTRUCTION], lambda b, a: dictionary(a) - dictionary(b)),
    ):
        expected = naive(model, "whole", Site(1), predict)
        torch.testing.assert_close(torch.stack([one.loss, one.kl]), expected, rtol=2e-4, atol=1e-5)


def test_attention_sinks_keep_the_base_s_stream(model):
    found = survey(model, "whole", MIXED, ["layers.1"], capture=Capture(outlier_multiple=1.0))
    limit = found.limits[Site(1)]
    exact = splice(model, found, {}, {}, {"layers.1": torch.zeros(D)}, repeats=2).exact
    one = torch.stack([exact["layers.1"].loss, exact["layers.1"].kl])
    expected = naive(model, "whole", Site(1), lambda b, a: a - b, limit)
    torch.testing.assert_close(one, expected, rtol=2e-4, atol=1e-5)
    every = naive(model, "whole", Site(1), lambda b, a: a - b)
    assert (expected - every).abs().max() > 1e-2


def test_a_planted_direction_is_recovered_by_the_dictionary_that_holds_it(model):
    named = {"holds": signed(DIRECTION), "lacks": signed(ORTHOGONAL)}
    found = spliced(model, "planted", WINDOWS, {place("layers.1", n): d for n, d in named.items()})
    deltas, _ = found.survey.pool[Site(1)]
    assert deltas.norm(dim=1).mean() > 0.1
    assert torch.linalg.matrix_rank(deltas, rtol=1e-4) == 1
    kl = values(recovery_estimates(found, Key("planted")), "recovery.kl")
    assert kl["layers.1", EXACT].value == 1.0
    assert kl["layers.0", EXACT].value == 0.0
    assert kl["layers.1", "holds"].value == pytest.approx(1.0, abs=1e-6)
    assert kl["layers.1", "holds"].verdict == "above"
    assert kl["layers.1", "lacks"].value == pytest.approx(0.0, abs=1e-3)
    assert kl["layers.1", "lacks"].verdict != "above"


def test_random_dictionaries_recover_no_more_than_chance(model):
    dictionaries = {}
    for seed in range(20):
        directions = isotropic(64, D, generator(seed, "random dictionary"))
        bias = torch.full((64,), -0.05)
        each = ReluDictionary(directions.T, bias, directions, torch.zeros(D))
        dictionaries[Key("a", 4, "layers.1", seed, "delta")] = each
    found = spliced(model, "whole", WINDOWS, dictionaries, ("layers.1",))
    kl = [e for e in recovery_estimates(found, Key("a")) if e.key.dictionary == "delta"]
    verdicts = [e.verdict for e in kl if e.measure == "recovery.kl"]
    assert len(verdicts) == 20
    assert verdicts.count("above") <= 1


def test_outputs_that_equal_the_base_s_are_refused(model):
    found = survey(model, "faint", WINDOWS, SITES)
    with pytest.raises(InputError, match="equal the base's within numeric noise"):
        splice(model, found, {}, {}, {site: torch.zeros(D) for site in SITES})


def test_rotated_at_equal_l0_is_as_sparse_and_else_the_rotated_dictionary():
    random = generator(0, "equal L0")
    directions = isotropic(96, D, random)
    rows = torch.randn(200, D, generator=random)
    # One that reads its own latents' directions, and is silent on most.
    sparse = ReluDictionary(directions.T, torch.full((96,), -1.2), directions, torch.zeros(D))
    turn = random_rotation(D, random)
    eye = torch.eye(D)
    torch.testing.assert_close(rotated_at_equal_l0(sparse, rows, eye), sparse(rows))
    turned = sparse.rotated(turn)
    active, others = ((d.encode(rows) > 0).sum(1) for d in (sparse, turned))
    assert (others > active).any()
    assert (others < active).any()
    found = rotated_at_equal_l0(sparse, rows, turn)
    fewer = others <= active
    torch.testing.assert_close(found[fewer], turned(rows)[fewer], atol=1e-4, rtol=1e-4)
    for row, most, rebuilt in zip(rows[~fewer], active[~fewer], found[~fewer], strict=True):
        codes = turned.encode(row)
        kept = codes.argsort(descending=True)[:most]
        expected = codes[kept] @ turned.directions[kept]
        torch.testing.assert_close(rebuilt, expected, atol=1e-4, rtol=1e-4)


def test_deltas_of_other_documents_are_of_other_documents():
    owners = torch.tensor([0] * 5 + [2] * 1 + [3] * 14)
    pool = torch.arange(20.0)[:, None]
    wanted = torch.tensor([0, 2, 3]).repeat_interleave(4000)
    picks = of_other_documents(pool, owners, wanted, generator(0, "picks"))[:, 0].long()
    assert not (owners[picks] == wanted).any()
    for document in (0, 2, 3):
        counts = picks[wanted == document].bincount(minlength=20)[owners != document]
        expected = 4000 / len(counts)
        assert (counts - expected).abs().max() < 5 * expected**0.5


def test_controls_are_drawn_anew_and_depend_on_the_seed_alone(model):
    found = survey(model, "whole", WINDOWS, ["layers.1"])

    def drawn(seed):
        torch.manual_seed(seed + 7)
        means = {"layers.1": torch.full((D,), 0.1)}
        done = splice(model, found, {}, {}, means, seed=seed, repeats=2)
        return done.controls["layers.1"]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert list(first) == [
        "mean of the training deltas",
        "norm-matched random",
        "deltas of other documents",
    ]
    for name, outcomes in first.items():
        assert all(torch.equal(a.kl, b.kl) for a, b in zip(outcomes, again[name], strict=True))
        same = torch.equal(outcomes[0].kl, other[name][0].kl)
        assert same == (name == "mean of the training deltas")
        if len(outcomes) > 1:
            assert not torch.equal(outcomes[0].kl, outcomes[1].kl)


def test_splicing_leaves_the_model_as_it_was(model):
    before = fingerprint(model.module)
    spliced(model, "whole", WINDOWS, {place("layers.1"): signed(DIRECTION)})
    assert fingerprint(model.module) == before
    assert model.current == "base"
    assert not model.module.training
    assert all(not m._forward_hooks and "forward" not in m.__dict__ for m in model.module.modules())

"""One latent at a time: planted, by hand, and against hooks on the whole model."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.activations.tokens import Window
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.measures import attribution
from lorascope.measures.attribution import attributed_losses
from lorascope.measures.definitions.causes import DEFINITIONS
from lorascope.measures.single_latents import (
    MODES,
    Changes,
    LatentEffects,
    correlation,
    latent_effects,
    latent_estimates,
    leading_latents,
)
from lorascope.measures.surveys import survey
from lorascope.models.adapted import load
from lorascope.models.freezing import fingerprint
from lorascope.models.hooks import replace, run_until
from lorascope.models.sites import Site, block_list
from lorascope.results import Key

D = 32
IDS = torch.randint(3, 60, (4, 10), generator=torch.Generator().manual_seed(0))
WINDOWS = [Window(row.tolist(), [False] * 3 + [True] * 7, index) for index, row in enumerate(IDS)]
# The class of tokens on which the planted adapter writes, and what it writes.
CLASS = IDS % 3 == 0
AXES = torch.linalg.qr(torch.randn(D, 6, generator=torch.Generator().manual_seed(2))).Q.T


@pytest.fixture(scope="module")
def model(tiny_checkpoint, save_adapter, tmp_path_factory):
    """An ordinary adapter, and one made to write one direction on one class of tokens."""
    folder = tmp_path_factory.mktemp("adapters")
    paths = {
        "whole": save_adapter(folder / "whole", target_modules=["q_proj", "up_proj"]),
        "planted": save_adapter(
            folder / "planted",
            r=1,
            lora_alpha=1,
            target_modules=["down_proj"],
            layers_to_transform=[1],
        ),
    }
    bare = load(str(tiny_checkpoint()), {}, device="cpu")
    reads = []
    down = block_list(bare.module)[1].mlp.down_proj
    handle = down.register_forward_hook(lambda _, given, __: reads.append(given[0]))
    with torch.no_grad():
        bare.module(input_ids=IDS)
    handle.remove()
    inputs = reads[0].flatten(0, 1).double()
    wanted = CLASS.flatten().double()[:, None]
    # Fewer tokens than dimensions: A x = 1 on the class and 0 elsewhere, exactly.
    reader = torch.linalg.lstsq(inputs, wanted, driver="gelsd").solution
    assert (inputs @ reader - wanted).abs().max() < 1e-9
    weights = paths["planted"] / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors = {
        key: (reader.T.float() if "lora_A" in key else 3 * AXES[:1].T).contiguous()
        for key in tensors
    }
    save_file(tensors, weights, metadata={"format": "pt"})
    return load(str(tiny_checkpoint()), {n: str(p) for n, p in paths.items()}, device="cpu")


def threshold(directions, threshold=0.1):
    """Latent i reads and writes direction i, less a threshold it gives back where it fires."""
    count = len(directions)
    return ReluDictionary(
        directions.T, torch.full((count,), -threshold), directions, torch.zeros(D)
    )


@pytest.fixture(scope="module")
def planted(model):
    """Effects of the planted direction's latent, and of two that have nothing to do with it."""
    found = survey(model, "planted", WINDOWS, ["layers.1"])
    rows = torch.stack([AXES[1], AXES[0], AXES[2]])
    # Silent on what rounding leaves outside the class; what the threshold takes is given back.
    dictionary = ReluDictionary(rows.T, torch.full((3,), -0.1), rows * 3 / 2.9, torch.zeros(D))
    return found, latent_effects(model, found, "layers.1", dictionary, torch.tensor([1, 0, 2]))


def test_the_planted_direction_is_written_on_its_class_alone(planted):
    deltas, _ = planted[0].pool[Site(1)]
    expected = 3 * CLASS.flatten()[:, None] * AXES[0]
    torch.testing.assert_close(deltas, expected, atol=1e-3, rtol=0)
    assert 8 < CLASS.sum() < 24
    assert planted[0].base.kl.sum() > 0.1


def test_taking_the_planted_latent_away_gives_the_base_back(planted):
    found, effects = planted
    tokens = found.tokens.sum()
    ablation, addition = effects.changes["ablation"], effects.changes["addition"]
    assert effects.density.tolist() == pytest.approx([float(CLASS.float().mean()), 0, 0])
    assert effects.strength[0].item() == pytest.approx(3.0, rel=1e-3)
    # KL(adapted ‖ ablated) is KL(adapted ‖ base), and the loss is the base's.
    assert ablation.kl[0, 0].item() == pytest.approx(float(found.base.kl.sum() / tokens), rel=1e-3)
    change = float((found.base.loss - found.adapted.loss).sum() / tokens)
    assert abs(change) > 1e-2
    assert ablation.loss[0, 0].item() == pytest.approx(change, rel=1e-2)
    assert addition.loss[0, 0].item() == pytest.approx(-change, rel=1e-2)
    for changes in (ablation, addition):
        assert changes.kl[0, 0] > 0.01
        assert changes.kl[1:, 0].abs().max() < 1e-5 * changes.kl[0, 0]


@torch.no_grad()
def test_promoted_tokens_are_looked_at_where_the_latent_fires(model, planted):
    _, effects = planted
    logits = {}
    for variant in ("base", "planted"):
        with model.variant(variant) as module:
            logits[variant] = module(input_ids=IDS).logits
    change = logits["planted"] - logits["base"]
    change = change - change.mean(-1, keepdim=True)
    # Positions 2 to 8 predict response tokens.
    active = change[:, 2:9][CLASS[:, 2:9]][:, effects.promoted[0]].mean().item()
    assert effects.changes["addition"].logit[0, 0].item() == pytest.approx(active, rel=1e-3)
    assert effects.changes["ablation"].logit[0, 0].item() == pytest.approx(-active, rel=1e-3)
    everywhere = change[:, 2:9][..., effects.promoted[0]].mean().item()
    assert abs(everywhere - active) > 0.05 * abs(active)
    # Where a latent never fires there is nothing to look at.
    assert effects.changes["addition"].logit[1:].isnan().all()


@torch.no_grad()
def naive(model, adapter, mode, dictionary, latent, direction):
    """Change of loss and KL a scored token, window by window, with a hook on the whole model."""
    sums = torch.zeros(2, dtype=torch.float64)
    variant = adapter if mode == "ablation" else "base"
    for window in WINDOWS:
        ids = torch.tensor([window.ids])
        streams = {}
        for name in ("base", adapter):
            with model.variant(name) as module:
                streams[name] = run_until(module, [Site(1)], ids)[Site(1)]
        codes = dictionary.encode(streams[adapter] - streams["base"])[..., latent]
        written = codes[..., None] * dictionary.directions[latent].norm() * direction
        sign = -1 if mode == "ablation" else 1
        new = streams[variant] + sign * written
        with model.variant(variant) as module:
            before = torch.log_softmax(module(input_ids=ids).logits[0].double(), -1)
            with replace(module, Site(1), lambda _, new=new: new):
                after = torch.log_softmax(module(input_ids=ids).logits[0].double(), -1)
        for t in range(3, 10):
            p, q, target = before[t - 1], after[t - 1], window.ids[t]
            sums += torch.stack([p[target] - q[target], (p.exp() * (p - q)).sum()])
    return (sums / 28).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_changes_are_those_of_a_loop_with_hooks(model, mode):
    dictionary = threshold(2 * AXES, 0.2)
    found = survey(model, "whole", WINDOWS, ["layers.1"])
    latents = leading_latents(dictionary, found.pool[Site(1)][0], 3)
    effects = latent_effects(model, found, "layers.1", dictionary, latents)
    changes = effects.changes[mode]
    for row, latent in enumerate(latents.tolist()):
        loss, kl = naive(model, "whole", mode, dictionary, latent, AXES[latent])
        assert changes.loss[row, 0].item() == pytest.approx(loss, rel=1e-3, abs=1e-6)
        assert changes.kl[row, 0].item() == pytest.approx(kl, rel=1e-3)
        assert kl > 1e-4
    written = dictionary.encode(found.pool[Site(1)][0])[:, latents]
    torch.testing.assert_close(effects.density, (written > 0).float().mean(0))
    expected = 2 * written.sum(0) / (written > 0).sum(0)
    torch.testing.assert_close(effects.strength, expected, rtol=1e-4, atol=1e-5)


def test_the_first_control_is_another_latent_s_direction(model):
    pair = threshold(AXES[:2], 0.0)
    found = survey(model, "whole", WINDOWS, ["layers.1"])
    changes = latent_effects(model, found, "layers.1", pair, torch.tensor([0, 1])).changes
    for latent in (0, 1):
        loss, kl = naive(model, "whole", "addition", pair, latent, AXES[1 - latent])
        assert changes["addition"].loss[latent, 1].item() == pytest.approx(loss, rel=1e-3, abs=1e-6)
        assert changes["addition"].kl[latent, 1].item() == pytest.approx(kl, rel=1e-3)


def test_small_changes_are_attributed_and_controls_have_the_same_size(model):
    # Directions this short move the stream by a thousandth of the delta.
    small = ReluDictionary(AXES.T, torch.zeros(6), 1e-2 * AXES, torch.zeros(D))
    found = survey(model, "whole", WINDOWS, ["layers.0"])
    effects = latent_effects(model, found, "layers.0", small, torch.arange(6))
    for mode in MODES:
        changes = effects.changes[mode]
        large = changes.loss.abs() > 0.3 * changes.loss.abs().max()
        assert large.sum() > 3
        ratio = changes.attributed_loss[large] / changes.loss[large]
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=0.1)
        assert (changes.kl.mean(0) / changes.kl.mean()).tolist() == pytest.approx([1] * 3, abs=0.6)


def test_first_order_effects_of_all_latents_are_those_of_each(model):
    dictionary = threshold(2 * AXES, 0.2)
    found = survey(model, "whole", WINDOWS, ["layers.1"])
    latents = torch.arange(6)
    one_by_one = latent_effects(model, found, "layers.1", dictionary, latents).changes["ablation"]
    expected = one_by_one.attributed_loss[:, 0]
    assert expected.abs().max() > 1e-4
    together = attributed_losses(model, found, "layers.1", dictionary)
    torch.testing.assert_close(together.loss, expected, rtol=1e-4, atol=1e-8)


def test_the_chance_level_of_first_order_effects_holds_95_percent_of_random_directions(model):
    found = survey(model, "whole", WINDOWS, ["layers.1"])
    dictionary = threshold(AXES, 0.1)
    chance = attributed_losses(model, found, "layers.1", dictionary).chance
    assert chance.max() > 1e-4
    # The same latents, each writing a direction drawn at random in place of its own.
    random, inside = torch.Generator().manual_seed(0), []
    for _ in range(40):
        drawn = isotropic(6, D, random)
        encoder = dictionary.encoder, dictionary.encoder_bias
        turned = ReluDictionary(*encoder, drawn, torch.zeros(D))
        changed = attributed_losses(model, found, "layers.1", turned).loss
        inside.append(changed.abs() <= chance)
    share = torch.stack(inside).float()[:, chance > 0].mean()
    assert 0.9 < share < 0.99


def test_a_wide_stream_s_chance_level_is_sketched(model, monkeypatch):
    found = survey(model, "whole", WINDOWS, ["layers.1"])
    whole = attributed_losses(model, found, "layers.1", threshold(AXES, 0.1))
    monkeypatch.setattr(attribution, "_SKETCH", 31)
    sketched = attributed_losses(model, found, "layers.1", threshold(AXES, 0.1))
    assert torch.equal(whole.loss, sketched.loss)
    assert not torch.equal(whole.chance, sketched.chance)
    torch.testing.assert_close(whole.chance, sketched.chance, rtol=0.5, atol=0)


def test_after_the_last_block_the_logits_change_as_attributed(model):
    dictionary = threshold(AXES, 0.0)
    found = survey(model, "whole", WINDOWS, ["layers.2"])
    effects = latent_effects(model, found, "layers.2", dictionary, torch.arange(6))
    for mode, sign in (("ablation", -1), ("addition", 1)):
        changes = effects.changes[mode]
        torch.testing.assert_close(changes.logit, changes.attributed_logit, rtol=1e-3, atol=1e-4)
        assert (sign * changes.logit[:, 0]).min() > 0
        assert changes.logit[:, 1:].abs().mean() < 0.8 * changes.logit[:, 0].abs().mean()
    assert effects.promoted.shape == (6, 10)
    # The norm aside, a direction promotes the tokens whose rows of the output matrix lie along it.
    base = model.module
    along = base.lm_head.weight @ (base.model.norm.weight * AXES[0])
    rank = (along > along[effects.promoted[0, 0]]).sum()
    assert rank < 10


def test_leading_latents_by_hand():
    directions = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [0.0, -1.0]])
    dictionary = ReluDictionary(directions.T, torch.zeros(4), directions, torch.zeros(2))
    # z ‖d‖ of latent 0: 3 + 1; 1: 5 · 5 · 0.5; 2: 2; 3: nothing.
    deltas = torch.tensor([[3.0, 0.0], [1.0, 0.5], [-2.0, 0.0]])
    assert leading_latents(dictionary, deltas, 2).tolist() == [1, 0]
    assert leading_latents(dictionary, deltas, 9).tolist() == [1, 0, 2]
    with pytest.raises(InputError, match="no latent fires"):
        leading_latents(dictionary, torch.zeros(3, 2), 2)


def test_correlation_is_that_of_numpy():
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 30, generator=random, dtype=torch.float64)
    columns = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], 1)
    expected = np.corrcoef(x.numpy(), y.numpy())[0, 1]
    assert correlation(columns.sum(0)[None]).item() == pytest.approx(expected)
    assert correlation(torch.tensor([[3.0, 6.0, 2.0, 12.0, 4.0, 4.0]])).isnan().all()


def made(attributed, came):
    """Effects with given losses, logits ten times as large and KL their squares."""

    def changes(sign):
        x, y = (sign * torch.tensor(v, dtype=torch.float64) for v in (attributed, came))
        return Changes(x, y, y.square(), 10 * x, 10 * y)

    count = len(came)
    return LatentEffects(
        torch.arange(count),
        torch.ones(count),
        torch.ones(count),
        torch.zeros(count, 10).long(),
        {"ablation": changes(1), "addition": changes(-1)},
    )


def test_estimates_by_hand():
    came = [[1.0, 0.5, 0.0], [2.0, -0.5, 0.2], [4.0, 0.5, 0.1], [5.0, 0.5, 0.1]]
    attributed = [[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [4.0, 0.0, 0.0], [7.0, 0.0, 0.0]]
    estimates = {e.measure: e for e in latent_estimates(made(attributed, came), Key("a"))}
    assert set(estimates) == {key for key in DEFINITIONS if key.startswith("latent_")}
    kl = estimates["latent_ablation.kl"]
    assert kl.value == pytest.approx((1 + 4 + 16 + 25) / 4)
    assert [(c.name, c.level) for c in kl.nulls] == [
        ("other latents", pytest.approx(0.25)),
        ("isotropic", pytest.approx(0.06 / 4)),
    ]
    # Four latents have no interval; twelve have.
    assert all(map(math.isnan, kl.interval))
    more = {e.measure: e for e in latent_estimates(made(3 * attributed, 3 * came), Key("a"))}
    low, high = more["latent_ablation.kl"].interval
    assert 1 < low < kl.value < high < 25
    assert estimates["latent_ablation.promoted"].value == pytest.approx(30.0)
    assert estimates["latent_addition.promoted"].value == pytest.approx(-30.0)
    r = estimates["latent_ablation.loss_attributed"]
    assert r.value == pytest.approx(np.corrcoef([2, 1, 4, 7], [1, 2, 4, 5])[0, 1])
    assert r.nulls[0].name == "latents permuted"
    assert -1 <= r.nulls[0].low < 0 < r.nulls[0].high <= 1
    for estimate in estimates.values():
        assert estimate.unit == DEFINITIONS[estimate.measure].unit
        assert estimate.n == 4


def test_few_latents_have_no_correlation():
    rows = [[1.0, 0.5, 0.0], [2.0, -0.5, 0.2], [4.0, 0.5, 0.1]]
    names = [e.measure for e in latent_estimates(made(rows, rows), Key())]
    assert not any("attributed" in name for name in names)
    assert "latent_ablation.kl" in names


def test_unrelated_forecasts_stay_within_chance_and_true_ones_leave_it():
    related, unrelated = 0, 0
    for seed in range(100):
        random = torch.Generator().manual_seed(seed)
        x, y = torch.randn(2, 24, 3, generator=random).tolist()
        measure = "latent_ablation.loss_attributed"
        for attributed, came in ((x, y), (x, (torch.tensor(x) + 0.3 * torch.tensor(y)).tolist())):
            found = {e.measure: e for e in latent_estimates(made(attributed, came), Key())}
            apart = found[measure].apart
            if came is y:
                unrelated += apart
            else:
                related += apart
    assert unrelated <= 5
    assert related >= 95


def test_effects_depend_on_the_seed_alone_and_leave_the_model_as_it_was(model):
    before = fingerprint(model.module)
    found = survey(model, "whole", WINDOWS, ["layers.1"])

    def kl(seed):
        torch.manual_seed(seed + 3)
        latents = torch.tensor([0, 3])
        return (
            latent_effects(model, found, "layers.1", threshold(AXES), latents, seed=seed)
            .changes["ablation"]
            .kl
        )

    first, again, other = kl(0), kl(0), kl(1)
    assert torch.equal(first, again)
    assert torch.equal(first[:, 0], other[:, 0])
    assert not torch.equal(first[:, 2], other[:, 2])
    assert fingerprint(model.module) == before
    assert model.current == "base"
    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert all(not m._forward_hooks and "forward" not in m.__dict__ for m in model.module.modules())


def test_what_cannot_be_asked_is_refused(model):
    found = survey(model, "whole", WINDOWS, ["layers.1"])
    with pytest.raises(InputError, match="no latent 6: the dictionary has 6"):
        latent_effects(model, found, "layers.1", threshold(AXES), torch.tensor([0, 6]))
    lone = threshold(isotropic(1, D, torch.Generator().manual_seed(0)))
    with pytest.raises(InputError, match="no other to compare"):
        latent_effects(model, found, "layers.1", lone, torch.tensor([0]))

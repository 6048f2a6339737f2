"""Every architecture: written-out gradients are autograd's, in every layout; losses by hand."""

import math

import pytest
import torch
from torch.nn import functional

from lorascope.config import Settings
from lorascope.dictionaries.card import Card
from lorascope.randomness import generator
from lorascope.training.architectures import (
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    ReLU,
    TopK,
    objective,
)
from lorascope.training.architectures.codes import DenseCodes, SparseCodes
from lorascope.training.architectures.objective import TrainingStart
from lorascope.training.architectures.revival import RevivedObjective

D, N, ROWS = 12, 48, 64
SETTINGS = [
    ReLU(n_latents=N, l1=0.3),
    TopK(n_latents=N, k=5, aux=0.7, k_aux=6),
    BatchTopK(n_latents=N, k=5, aux=0.7, k_aux=6),
    Matryoshka(n_latents=N, k=5, prefixes=(0.25, 0.5, 1.0), aux=0.7, k_aux=6),
    JumpReLU(n_latents=N, penalty=0.1, threshold=0.5, bandwidth=0.6),
    Gated(n_latents=N, l1=0.2),
]
REVIVED = [s for s in SETTINGS if isinstance(s, TopK | BatchTopK)]
NAMES = {"ids": lambda s: s.architecture if isinstance(s, Settings) else None}


def made(settings, products=torch.float32):
    """An objective far from its start: no decoder row of unit norm, no bias zero."""
    random = generator(0)
    directions = functional.normalize(torch.randn(N, D, generator=random), dim=1)
    fresh = settings.objective(
        TrainingStart(directions, torch.randn(D, generator=random)), products
    )
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if name != "log_threshold":
                parameter.copy_(torch.randn(parameter.shape, generator=random))
    fresh.l0.fill_(1.0)
    return fresh


def batch(seed=2):
    return torch.randn(ROWS, D, generator=generator(seed))


@pytest.fixture(params=["dense", "sparse"])
def layout(request, monkeypatch):
    """Every batch in one layout, whatever its L0."""
    monkeypatch.setattr(objective, "SPARSE_BELOW", 0.0 if request.param == "dense" else 2.0)
    # More than one block of rows.
    monkeypatch.setattr(objective, "_BLOCK", 20 * N)
    monkeypatch.setattr(objective, "_LEAST_ROWS", 1)
    return DenseCodes if request.param == "dense" else SparseCodes


def with_dead(fresh, latents=range(10, 30)):
    """Some latents long silent, as of the next look and of autograd's."""
    fresh.idle[list(latents)] = 10**6
    fresh.dead.copy_(fresh.idle >= fresh.dead_after)
    return fresh


def compare(fresh, x, tolerance):
    fresh.zero_grad()
    fresh.plain_loss(x).backward()
    exact = {name: p.grad.clone() for name, p in fresh.named_parameters()}
    fresh.zero_grad()
    scalars = fresh.step(x)
    for name, gradient in exact.items():
        assert gradient.norm() > 1e-4, name
        found = fresh.get_parameter(name).grad
        assert found.dtype == torch.float32
        difference = (found - gradient).norm() / gradient.norm()
        assert difference < tolerance, name
    return scalars


@pytest.mark.parametrize("settings", SETTINGS, **NAMES)
def test_explicit_gradients_are_autograds(settings, layout):
    fresh, x = made(settings), batch()
    with torch.no_grad():
        fresh.prepare()
        codes, _ = fresh.encode(x - fresh.decoder_bias, fresh.gain())
        assert isinstance(codes, layout)
    scalars = compare(fresh, x, 1e-5)
    assert 0.1 < scalars["l0"] / 5 < 10


@pytest.mark.parametrize("settings", REVIVED, **NAMES)
@pytest.mark.parametrize("dead", [range(10, 30), range(3, 6)], ids=["many", "few"])
def test_explicit_gradients_are_autograds_with_dead_latents(settings, dead, layout):
    fresh, x = with_dead(made(settings), dead), batch()
    alive = made(settings)
    assert fresh.plain_loss(x) > alive.plain_loss(x) + 1e-3
    compare(fresh, x, 1e-5)


@pytest.mark.parametrize("settings", SETTINGS, **NAMES)
def test_bfloat16_products_give_nearly_the_same_gradients(settings):
    x = batch()
    compare_to = made(settings)
    compare_to.step(x)
    low = made(settings, torch.bfloat16)
    low.step(x)
    for name in ("decoder", "encoder", "encoder_bias", "decoder_bias"):
        exact, found = compare_to.get_parameter(name).grad, low.get_parameter(name).grad
        assert found.dtype == torch.float32
        # some latents near the edge of what is kept are others in low precision
        assert 0 < (found - exact).norm() / exact.norm() < 0.25, name


@pytest.mark.parametrize("settings", SETTINGS, **NAMES)
def test_the_scale_is_folded_in(settings):
    fresh, scale = made(settings), 37.0
    x = batch()
    fresh.finish(x)
    plain, scaled = fresh.dictionary(1.0, Card()), fresh.dictionary(scale, Card())
    z = plain.encode(x)
    assert 0.02 < (z > 0).float().mean() < 0.9
    torch.testing.assert_close(scaled.encode(scale * x), scale * z, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(scaled(scale * x), scale * plain(x), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(plain.directions.norm(dim=1), torch.ones(N))


@pytest.mark.parametrize(
    "settings", [s for s in SETTINGS if s.architecture != "matryoshka"], **NAMES
)
def test_the_dictionary_is_what_the_loss_was_taken_on(settings):
    fresh, x = made(settings), batch()
    fresh.finish(x)
    error = (fresh.dictionary(1.0, Card())(x) - x).square().sum(1).mean()
    assert error.item() == pytest.approx(fresh.step(x)["error"].item(), rel=1e-4)


@pytest.mark.parametrize("settings", SETTINGS, **NAMES)
def test_first_reconstructions_are_as_long_as_their_inputs(settings):
    random = generator(3)
    directions = functional.normalize(torch.randn(N, D, generator=random), dim=1)
    x = batch() / batch().norm(dim=1).mean()
    fresh = settings.objective(TrainingStart(directions, torch.zeros(D)))
    fresh.calibrate(x)
    with torch.no_grad():
        fresh.finish(x)
        rebuilt = fresh.dictionary(1.0, Card())(x)
    slope = (x * rebuilt).sum() / rebuilt.square().sum()
    # thresholds do not scale with the encoder
    assert slope.item() == pytest.approx(
        1.0, abs=0.5 if settings.architecture == "jumprelu" else 0.01
    )


def two_latents(settings, **values):
    """Directions (.6, .8) and (0, −1) of lengths 5 and 2; encoder rows (1, 1) and (2, 0)."""
    start = TrainingStart(torch.tensor([[0.6, 0.8], [0.0, -1.0]]), torch.tensor([1.0, -2.0]))
    fresh = settings.objective(start)
    with torch.no_grad():
        fresh.decoder.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))
        fresh.encoder.copy_(torch.tensor([[1.0, 1.0], [2.0, 0.0]]) / torch.tensor([[5.0], [2.0]]))
        fresh.encoder_bias.copy_(torch.tensor([1.0, -1.0]) / torch.tensor([5.0, 2.0]))
        for name, value in values.items():
            fresh.get_parameter(name).copy_(torch.tensor(value))
    return fresh


X = torch.tensor([[2.0, 1.0], [1.0, -4.0]])


def test_relu_by_hand():
    fresh = two_latents(ReLU(n_latents=2, l1=0.5))
    # centred [1, 3], [0, -2]; gains 5 and 2 take the encoder's lengths back: z [5, 1], [0, 0]
    # z·D [3, 3], [0, 0]; errors [2, 0], [0, 2]: (4 + 4)/2 + 0.5 (6 + 0)/2
    assert fresh.plain_loss(X).item() == pytest.approx(5.5)
    scalars = fresh.step(X)
    assert scalars["error"].item() == pytest.approx(4.0)
    assert scalars["l0"].item() == 1.0
    assert scalars["l1"].item() == 0.5


def test_topk_by_hand():
    fresh = two_latents(TopK(n_latents=2, k=1))
    # z [5, 0], [0, 0]: z·D [3, 4], [0, 0]; errors [2, 1], [0, 2]: (5 + 4)/2
    assert fresh.plain_loss(X).item() == pytest.approx(4.5)
    assert fresh.step(X)["error"].item() == pytest.approx(4.5)


def test_batch_topk_by_hand():
    fresh = two_latents(BatchTopK(n_latents=2, k=1))
    # the two largest of the whole batch are both in the first row, as in ReLU: (4 + 4)/2
    assert fresh.plain_loss(X).item() == pytest.approx(4.0)
    fresh.finish(X)
    # halfway between the last one kept, 1, and the next, 0
    assert fresh.threshold.item() == pytest.approx(0.5)


def test_matryoshka_by_hand():
    fresh = two_latents(Matryoshka(n_latents=2, k=1, prefixes=(0.5, 1.0)))
    # first latent alone: errors [2, 1], [0, 2]: 4.5; both: 4
    assert fresh.plain_loss(X).item() == pytest.approx((4.5 + 4.0) / 2)
    assert fresh.step(X)["error"].item() == pytest.approx(4.0)


def test_jumprelu_by_hand():
    settings = JumpReLU(n_latents=2, penalty=0.5, bandwidth=1.0)
    fresh = two_latents(settings, log_threshold=[2.0, 1.2])
    with torch.no_grad():
        fresh.log_threshold.copy_(fresh.log_threshold.log())
    # pre [5, 1], [-1, -1]; θ [2, 1.2]: z [5, 0]; error 4.5 as in TopK; λ L0 0.5 · 1/2
    assert fresh.plain_loss(X).item() == pytest.approx(4.5 + 0.25)
    assert fresh.step(X)["error"].item() == pytest.approx(4.5)
    # near its threshold is the second latent on row 0, error there [2, 1]: the reconstruction's
    # ∂/∂z is 2/2 [2, 1]·[0, −1] = −1, so ∂/∂θ is −(1.2/1)(−1) − (0.5/2)(1/1) and ∂/∂log θ 1.2 that
    gradient = fresh.log_threshold.grad
    assert gradient.tolist() == pytest.approx([0.0, 1.2 * (1.2 - 0.25)], abs=1e-5)


def test_gated_by_hand():
    fresh = two_latents(
        Gated(n_latents=2, l1=0.5), log_scale=[0.0, 0.6931472], magnitude_bias=[-1.0, 0.5]
    )
    # read [4, 2], [-2, 0]; gates π [5, 1], [-1, -1]; magnitudes [4 - 1, 4 + .5] = [3, 4.5]
    # z·D [1.8, 2.4 - 4.5]; errors [.8, -5.1], [0, 2]; gates' errors [2, 0], [0, 2] as in ReLU
    main = (0.8**2 + 5.1**2 + 4.0) / 2
    assert fresh.plain_loss(X).item() == pytest.approx(main + 0.5 * 6 / 2 + 4.0, rel=1e-5)
    assert fresh.step(X)["error"].item() == pytest.approx(main, rel=1e-5)


def test_dead_latents_reconstruct_what_the_living_leave():
    """AuxK by hand: one dead latent, its share of the loss and where the loss falls."""
    settings = TopK(n_latents=2, k=1, aux=0.5, k_aux=2, dead_after=100)
    fresh = with_dead(two_latents(settings), [1])
    # the living leave [-2, -1], [0, -2]; the dead latent's z is 1 on row 0: D₁ = [0, -1]
    # leftovers [-2, 0], [0, -2] of squares 4 and 4; share ½ · min(1, 1/2)
    assert fresh.plain_loss(X).item() == pytest.approx(4.5 + 0.25 * 4.0)
    compare(fresh, X, 1e-5)


def test_a_latent_counts_as_dead_after_its_rows_and_only_then():
    settings = TopK(n_latents=N, k=5, dead_after=3 * ROWS)
    fresh, x = made(settings), batch()
    with torch.no_grad():
        fresh.encoder_bias[7] = -1000.0
    for _ in range(16):
        assert not fresh.dead.any()
        fresh.step(x)
    fresh.step(x)
    assert fresh.dead[7]
    assert fresh.idle[7] == 17 * ROWS
    fired = (fresh.dictionary(1.0, Card()).encode(x) > 0).any(0)
    assert not fresh.idle[fired].any()
    assert isinstance(fresh, RevivedObjective)


def test_auxk_is_saelens_own():
    """The reference: SAELens' auxiliary loss on the same weights, latents and dead set."""
    sae_lens = pytest.importorskip("sae_lens", reason="needs the saelens extra")
    settings = TopK(n_latents=N, k=5, aux=1.0, k_aux=None)
    fresh, x = with_dead(made(settings)), batch()
    config = sae_lens.TopKTrainingSAEConfig(d_in=D, d_sae=N, k=5, apply_b_dec_to_input=True)
    theirs = sae_lens.TopKTrainingSAE(config)
    with torch.no_grad():
        theirs.W_enc.copy_(fresh.encoder.T)
        theirs.W_dec.copy_(fresh.decoder)
        theirs.b_enc.copy_(fresh.encoder_bias)
        theirs.b_dec.copy_(fresh.decoder_bias)
    z, hidden = theirs.encode_with_hidden_pre(x)
    found = theirs.calculate_topk_aux_loss(
        sae_in=x,
        sae_out=theirs.decode(z),
        # ours scales pre-activations by the gain, biases included
        hidden_pre=hidden.relu(),
        dead_neuron_mask=fresh.dead,
    )
    mine = (
        fresh.plain_loss(x)
        - fresh.plain_error(x, fresh.activate(fresh.plain_pre(x))).square().sum(1).mean()
    )
    assert mine.item() > 0.1
    assert mine.item() == pytest.approx(found.item(), rel=1e-4)


@pytest.mark.parametrize("settings", [s for s in SETTINGS if hasattr(s, "target_l0")], **NAMES)
def test_the_penalty_is_steered_towards_the_target(settings):
    x = batch()
    l0 = made(settings).step(x)["l0"].item()

    def moved(target, off, horizon=None):
        fresh = made(settings.model_copy(update={"target_l0": target}))
        fresh.off.fill_(off)
        fresh.horizon = horizon
        before = fresh.weight.item()
        fresh.step(x)
        return fresh.weight.item() / before

    # Steady, λ moves by the ratio to the power 0.02: up where too many latents are active.
    assert moved(l0 / 2, math.log(2)) == pytest.approx(2**0.02, rel=1e-5)
    assert moved(2 * l0, -math.log(2)) == pytest.approx(0.5**0.02, rel=1e-5)
    # In a run of 400 steps by 40/400 at each; what changed since the last step beside it.
    assert moved(l0 / 1.5, math.log(1.5), 400) == pytest.approx(1.5**0.1, rel=1e-5)
    assert moved(l0 / 1.5, math.log(1.52)) == pytest.approx(1.5**0.02 * 1.5 / 1.52, rel=1e-5)
    # Far from the target: never by more than 5 %, and changes that far off do not count.
    assert moved(l0 / 10**4, 0.7) == pytest.approx(math.exp(0.05), rel=1e-5)
    assert moved(l0 / 4, 0.7) == pytest.approx(4**0.02, rel=1e-5)
    assert moved(None, 0.0) == 1.0


def test_settings_out_of_reach_are_refused():
    with pytest.raises(ValueError, match=r"target_l0 64\.0 must be below n_latents 64"):
        ReLU(n_latents=64, target_l0=64)
    for architecture in (TopK, BatchTopK):
        with pytest.raises(ValueError, match="k 64 must be below n_latents 64"):
            architecture(n_latents=64, k=64)
    for prefixes in [(0.5,), (0.5, 0.25, 1.0), (0.001, 1.0), (0.5, 0.5, 1.0)]:
        with pytest.raises(ValueError, match="must rise to 1"):
            Matryoshka(n_latents=64, k=4, prefixes=prefixes)

"""The written-out gradients are autograd's, and silent latents start anew as described."""

import pytest
import torch

from lorascope.dictionaries.card import Card
from lorascope.randomness import generator
from lorascope.training.architectures.relu import ReLU, ReluObjective

D, N, ROWS = 12, 30, 64
PARAMETERS = ("encoder", "encoder_bias", "decoder", "decoder_bias")


def objective(dtype=torch.float32, **settings):
    """An objective far from its start: no row of the decoder of unit norm, no bias zero."""
    made = ReluObjective(
        ReLU(**{"n_latents": N, "l1": 0.3, **settings}), torch.zeros(D), generator(0), dtype
    )
    random = generator(1)
    lengths = 0.2 + 3 * torch.rand(N, 1, generator=random)
    with torch.no_grad():
        made.decoder.copy_(torch.randn(N, D, generator=random) * lengths)
        made.encoder.copy_(torch.randn(D, N, generator=random))
        made.encoder_bias.copy_(torch.randn(N, generator=random))
        made.decoder_bias.copy_(torch.randn(D, generator=random))
    return made


def batch(seed=2):
    return torch.randn(ROWS, D, generator=generator(seed))


def gradients(made, x, explicit):
    made.zero_grad()
    if explicit:
        made.step(x)
    else:
        made.plain_loss(x).backward()
    return {name: getattr(made, name).grad.clone() for name in PARAMETERS}


def test_loss_by_hand():
    made = ReluObjective(ReLU(n_latents=2, l1=0.5), torch.tensor([1.0, -2.0]), generator(0))
    with torch.no_grad():
        made.decoder.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))
        made.encoder.copy_(torch.tensor([[1.0, 2.0], [1.0, 0.0]]))
        made.encoder_bias.copy_(torch.tensor([1.0, -1.0]))
    x = torch.tensor([[2.0, 1.0], [1.0, -4.0]])
    # centred [1, 3], [0, -2]; z [5, 1], [0, 0]; directions [.6, .8], [0, -1]
    # z·D [3, 3], [0, 0]; errors [2, 0], [0, 2]: (4 + 4)/2 + 0.5 (6 + 0)/2
    assert made.plain_loss(x).item() == pytest.approx(5.5)
    scalars = made.step(x)
    assert scalars["error"].item() == pytest.approx(4.0)
    assert scalars["l0"].item() == 1.0
    assert scalars["l1"].item() == 0.5


@pytest.mark.parametrize("l1", [0.01, 0.3, 5.0])
def test_explicit_gradients_are_autograds(l1):
    made = objective(l1=l1)
    x = batch()
    assert 0.1 < made.step(x)["l0"] / N < 0.9
    exact, explicit = gradients(made, x, explicit=False), gradients(made, x, explicit=True)
    for name in PARAMETERS:
        assert exact[name].norm() > 1e-3, name
        difference = (explicit[name] - exact[name]).norm() / exact[name].norm()
        assert difference < 1e-5, name


def test_the_decoders_gradient_is_along_the_sphere():
    made = objective()
    made.step(batch())
    along = (made.decoder.grad * made.decoder).sum(1)
    assert along.abs().max() < 1e-5 * made.decoder.grad.norm() * made.decoder.norm()


def test_bfloat16_products_give_nearly_the_same_gradients():
    x = batch()
    exact = gradients(objective(), x, explicit=True)
    low = gradients(objective(torch.bfloat16), x, explicit=True)
    for name in PARAMETERS:
        assert low[name].dtype == torch.float32
        difference = (low[name] - exact[name]).norm() / exact[name].norm()
        assert 0 < difference < 0.03, name


def test_the_scale_is_folded_into_the_biases():
    made = objective()
    scale = 37.0
    dictionary = made.dictionary(scale, Card())
    x = batch()
    z = torch.relu((x - made.decoder_bias) @ made.encoder + made.encoder_bias)
    directions = made.decoder / made.decoder.norm(dim=1, keepdim=True)
    torch.testing.assert_close(dictionary.directions.norm(dim=1), torch.ones(N))
    torch.testing.assert_close(dictionary.encode(scale * x), scale * z, rtol=1e-4, atol=1e-3)
    rebuilt = scale * (z @ directions + made.decoder_bias)
    torch.testing.assert_close(dictionary(scale * x), rebuilt, rtol=1e-4, atol=1e-3)


def test_the_penalty_is_steered_towards_the_target():
    x = batch()
    l0 = objective().step(x)["l0"].item()
    denser, sparser = objective(target_l0=l0 / 2), objective(target_l0=min(N - 1, 2 * l0))
    # the penalty moves by the ratio to the power 0.02: up where too many latents are active
    assert denser.step(x)["l1"].item() == pytest.approx(0.3 * 2**0.02, rel=1e-5)
    assert sparser.step(x)["l1"].item() == pytest.approx(
        0.3 * (l0 / min(N - 1, 2 * l0)) ** 0.02, rel=1e-5
    )
    far = objective(target_l0=l0 / 1000)
    assert far.step(x)["l1"].item() == pytest.approx(0.3 * 1.03, rel=1e-5)
    free = objective()
    free.step(x)
    assert free.l1.item() == pytest.approx(0.3)


SILENT = [3, 11, 29]


def silenced():
    """An objective with three latents that cannot fire, and an optimiser with moments for all."""
    made = objective()
    with torch.no_grad():
        made.encoder_bias[SILENT] = -1000.0
    optimizer = torch.optim.Adam(made.parameters(), lr=0.0)
    for seed in range(3):
        made.step(batch(seed))
        # gradients for the silent too, so that there is something to forget
        for parameter in made.parameters():
            parameter.grad += 0.1
        optimizer.step()
    return made, optimizer


def test_silent_latents_are_aimed_at_residuals():
    made, optimizer = silenced()
    assert made.firing.silent.nonzero().squeeze(1).tolist() == SILENT
    before = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    x = batch(9)
    directions = made.decoder / made.decoder.norm(dim=1, keepdim=True)
    z = torch.relu((x - made.decoder_bias) @ made.encoder + made.encoder_bias)
    residual = x - z @ directions - made.decoder_bias
    assert made.resample(x, optimizer, generator(5)) == len(SILENT)

    units = residual / residual.norm(dim=1, keepdim=True)
    nearest = (made.decoder[SILENT] @ units.T).max(dim=1)
    torch.testing.assert_close(nearest.values, torch.ones(len(SILENT)))
    living = [i for i in range(N) if i not in SILENT]
    strength = 0.2 * before["encoder"][:, living].norm(dim=0).mean()
    torch.testing.assert_close(made.encoder[:, SILENT], strength * made.decoder[SILENT].T)
    assert made.encoder_bias[SILENT].tolist() == [0.0] * len(SILENT)
    for name, index in {"decoder": living, "encoder_bias": living}.items():
        assert torch.equal(getattr(made, name)[index], before[name][index]), name
    assert torch.equal(made.encoder[:, living], before["encoder"][:, living])
    assert torch.equal(made.decoder_bias, before["decoder_bias"])


def test_a_new_start_forgets_the_optimisers_past_and_no_one_elses():
    made, optimizer = silenced()
    moments = {
        (name, kind): optimizer.state[getattr(made, name)][kind].clone()
        for name in PARAMETERS
        for kind in ("exp_avg", "exp_avg_sq")
    }
    assert all(bool((moment != 0).all()) for moment in moments.values())
    made.resample(batch(9), optimizer, generator(5))
    living = [i for i in range(N) if i not in SILENT]
    for (name, kind), before in moments.items():
        after = optimizer.state[getattr(made, name)][kind]
        if name == "decoder_bias":
            assert torch.equal(after, before)
            continue
        after, before = (m.T if name == "encoder" else m for m in (after, before))
        assert not after[SILENT].any(), (name, kind)
        assert torch.equal(after[living], before[living]), (name, kind)


def test_the_silent_fire_after_their_new_start():
    made, optimizer = silenced()
    made.step(batch(9))
    assert made.firing.counts[SILENT].sum() == 0
    made.resample(batch(9), optimizer, generator(5))
    assert made.firing.counts.sum() == 0
    made.step(batch(9))
    assert bool((made.firing.counts[SILENT] > 0).all())


def test_rows_are_drawn_in_proportion_to_their_squared_error():
    made, optimizer = silenced()
    with torch.no_grad():
        made.encoder_bias[1:] = -1000.0
        made.encoder_bias[0] = 1.0
    made.firing.reset()
    x = made.decoder_bias.detach() + 1e-3 * batch(9)
    x[7] += 50.0
    made.step(x)
    z = torch.relu((x - made.decoder_bias) @ made.encoder[:, :1] + made.encoder_bias[:1])
    residual = x - made.decoder_bias - z * made.decoder[0] / made.decoder[0].norm()
    errors = residual.square().sum(1)
    assert errors[7] > 0.99 * errors.sum()
    assert made.resample(x, optimizer, generator(5)) == N - 1
    aimed = made.decoder[1:] @ residual[7] / residual[7].norm()
    assert (aimed > 0.999).float().mean() > 0.9


def test_nothing_starts_anew_where_all_or_none_are_silent():
    made = objective()
    optimizer = torch.optim.Adam(made.parameters())
    before = made.decoder.detach().clone()
    assert made.resample(batch(), optimizer, generator(5)) == 0
    made.step(batch())
    made.firing.counts += 1
    assert made.resample(batch(), optimizer, generator(5)) == 0
    assert torch.equal(made.decoder, before)

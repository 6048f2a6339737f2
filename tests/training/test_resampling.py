"""Silent latents start anew as described, and no one else is touched."""

import pytest
import torch
from torch.nn import functional

from lorascope.dictionaries.card import Card
from lorascope.randomness import generator
from lorascope.training.architectures import Gated, JumpReLU, ReLU
from lorascope.training.architectures.objective import TrainingStart
from lorascope.training.resampling import resample

D, N, ROWS = 12, 30, 64
SILENT = [3, 11, 29]
LIVING = [i for i in range(N) if i not in SILENT]


def batch(seed=2):
    return torch.randn(ROWS, D, generator=generator(seed))


def silenced(settings=None):
    """An objective with three latents that cannot fire, and an optimiser with moments for all."""
    random = generator(0)
    settings = settings or ReLU(n_latents=N, l1=0.3)
    directions = functional.normalize(torch.randn(N, D, generator=random), dim=1)
    made = settings.objective(TrainingStart(directions, torch.randn(D, generator=random)))
    with torch.no_grad():
        made.encoder.copy_(torch.randn(N, D, generator=random))
        made.encoder_bias[SILENT] = -1000.0
    optimizer = torch.optim.Adam(made.parameters(), lr=0.0)
    for seed in range(3):
        made.step(batch(seed))
        # gradients for the silent too, so that there is something to forget
        for parameter in made.parameters():
            parameter.grad += 0.1
        optimizer.step()
    return made, optimizer


def anew(made, optimizer, x=None):
    return resample(made, batch(9) if x is None else x, optimizer, generator(5), since=3 * ROWS)


def test_silent_latents_are_aimed_at_residuals():
    made, optimizer = silenced()
    assert (made.idle >= 3 * ROWS).nonzero().squeeze(1).tolist() == SILENT
    before = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    x = batch(9)
    residual = x - made.dictionary(1.0, Card())(x)
    assert anew(made, optimizer, x) == len(SILENT)

    units = residual / residual.norm(dim=1, keepdim=True)
    nearest = (made.decoder[SILENT] @ units.T).max(dim=1)
    torch.testing.assert_close(nearest.values, torch.ones(len(SILENT)))
    strength = 0.2 * before["encoder"][LIVING].norm(dim=1).mean()
    torch.testing.assert_close(made.encoder[SILENT], strength * made.decoder[SILENT])
    assert made.encoder_bias[SILENT].tolist() == [0.0] * len(SILENT)
    for name in ("decoder", "encoder", "encoder_bias"):
        assert torch.equal(made.get_parameter(name)[LIVING], before[name][LIVING]), name
    assert torch.equal(made.decoder_bias, before["decoder_bias"])


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (JumpReLU(n_latents=N, threshold=0.25), "log_threshold", torch.tensor(0.25).log().item()),
        (Gated(n_latents=N), "log_scale", 0.0),
        (Gated(n_latents=N), "magnitude_bias", 0.0),
    ],
)
def test_what_else_a_latent_has_starts_anew_too(settings, name, value):
    made, optimizer = silenced(settings)
    with torch.no_grad():
        made.get_parameter(name).add_(torch.rand(N, generator=generator(8)))
    before = made.get_parameter(name).detach().clone()
    assert anew(made, optimizer) >= len(SILENT)
    assert made.get_parameter(name)[SILENT].tolist() == pytest.approx([value] * 3)
    changed = (made.get_parameter(name) != before).nonzero().squeeze(1).tolist()
    assert set(SILENT) <= set(changed)


def test_a_new_start_forgets_the_optimisers_past_and_no_one_elses():
    made, optimizer = silenced()
    moments = {
        (name, kind): optimizer.state[parameter][kind].clone()
        for name, parameter in made.named_parameters()
        for kind in ("exp_avg", "exp_avg_sq")
    }
    assert all(bool((moment != 0).all()) for moment in moments.values())
    anew(made, optimizer)
    for (name, kind), before in moments.items():
        after = optimizer.state[made.get_parameter(name)][kind]
        if name == "decoder_bias":
            assert torch.equal(after, before)
            continue
        assert not after[SILENT].any(), (name, kind)
        assert torch.equal(after[LIVING], before[LIVING]), (name, kind)


def test_the_silent_fire_after_their_new_start():
    made, optimizer = silenced()
    made.step(batch(9))
    assert (made.idle[SILENT] == 4 * ROWS).all()
    resample(made, batch(9), optimizer, generator(5), since=4 * ROWS)
    assert not made.idle[SILENT].any()
    made.step(batch(9))
    assert not made.idle[SILENT].any()


def test_rows_are_drawn_in_proportion_to_their_squared_error():
    made, optimizer = silenced()
    with torch.no_grad():
        made.encoder_bias[1:] = -1000.0
        made.encoder_bias[0] = 1.0
    made.idle[1:], made.idle[0] = 3 * ROWS, 0
    x = made.decoder_bias.detach() + 1e-3 * batch(9)
    x[7] += 50.0
    residual = x - made.dictionary(1.0, Card())(x)
    errors = residual.square().sum(1)
    assert errors[7] > 0.99 * errors.sum()
    assert anew(made, optimizer, x) == N - 1
    aimed = made.decoder[1:] @ residual[7] / residual[7].norm()
    assert (aimed > 0.999).float().mean() > 0.9


def test_nothing_starts_anew_where_all_or_none_are_silent():
    made, optimizer = silenced()
    before = made.decoder.detach().clone()
    for idle in (0, 10**6):
        made.idle.fill_(idle)
        assert anew(made, optimizer) == 0
    assert torch.equal(made.decoder, before)

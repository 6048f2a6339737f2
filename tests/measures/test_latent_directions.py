"""Single directions: planted, against their own chance level, and by the norms' definitions."""

import pytest
import torch

from lorascope.geometry.chance import covariance_root, isotropic
from lorascope.geometry.cosine import unit_rows
from lorascope.measures.latent_directions import (
    built_from,
    single_chance,
    token_chance,
    token_effects,
    verdicts,
)
from lorascope.models.adapted import load
from lorascope.randomness import generator


def random(name="test"):
    return generator(0, name)


def test_random_directions_lie_above_their_own_chance_level_in_2_5_percent():
    covariance = torch.diag(torch.linspace(3, 0.1, 24).square())
    root, others = covariance_root(covariance), isotropic(60, 24, random("others"))
    chance = single_chance(others, root, random("chance"))
    fresh = unit_rows(torch.randn(4000, 24, generator=random("fresh")) @ root.T)
    cosines = (fresh @ others.T).max(1).values
    assert (cosines > chance.high).float().mean() == pytest.approx(0.025, abs=0.012)
    assert (cosines < chance.low).float().mean() == pytest.approx(0.025, abs=0.012)
    assert chance.level == pytest.approx(float(cosines.mean()), abs=0.01)
    # A base direction itself stands out, and none of the dictionary's opposite.
    assert verdicts(torch.tensor([1.0, chance.level, -0.5]), chance) == [
        "above",
        "within",
        "below",
    ]


def test_what_a_direction_is_built_from_is_found_again():
    others = isotropic(50, 32, random("others"))
    planted = 2 * others[7] + others[31]
    free = isotropic(30, 32, random("free"))
    found = built_from(torch.cat([planted[None], free]), others, torch.eye(32), random(), k=2)
    assert found.latents[0].tolist() == [7, 31]
    torch.testing.assert_close(
        found.weights[0], torch.tensor([2.0, 1.0]).double() / planted.norm(), atol=1e-5, rtol=0
    )
    assert found.explained[0] == pytest.approx(1.0, abs=1e-5)
    assert found.explained[0] > found.chance.high
    # Nothing is planted in the others: they are built as well as from random directions.
    assert found.chance.level == pytest.approx(float(found.explained[1:].mean()), abs=0.08)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_tokens_are_those_of_norm_and_output_matrix_alone(tiny_checkpoint, architecture):
    model = load(str(tiny_checkpoint(architecture)), {}, device="cpu")
    directions = torch.randn(3, model.d_model, generator=random())
    found = token_effects(model, directions, most=4)
    module = model.module
    norm = module.transformer.ln_f if architecture == "gpt2" else module.model.norm
    scaled = unit_rows(directions) * model.d_model**0.5
    # By the norms' definitions, biases left out.
    centred = scaled - scaled.mean(1, keepdim=True) if architecture == "gpt2" else scaled
    gain = norm.weight + 1 if architecture == "gemma2" else norm.weight
    normed = centred / centred.square().mean(1, keepdim=True).sqrt() * gain
    logits = normed @ module.get_output_embeddings().weight.T
    if architecture == "gemma2":
        cap = module.config.final_logit_softcapping
        logits = cap * torch.tanh(logits / cap)
    logits = logits - logits.mean(1, keepdim=True)
    assert found.promoted.tolist() == logits.topk(4).indices.tolist()
    assert found.suppressed.tolist() == (-logits).topk(4).indices.tolist()
    torch.testing.assert_close(found.promoted_by, logits.topk(4).values, atol=2e-3, rtol=1e-3)
    assert (found.suppressed_by < 0).all()


def test_tokens_that_any_direction_promotes_do_not_come_first(tiny_checkpoint):
    model = load(str(tiny_checkpoint("llama")), {}, device="cpu")
    with torch.no_grad():
        # A hub: its row is much longer than others.
        model.module.lm_head.weight[7] *= 15
    directions = torch.randn(40, model.d_model, generator=random("directions"))
    # One direction writes a token of its own: along its row, as the norm's gain reads it.
    own = model.module.lm_head.weight[11] * model.module.model.norm.weight
    directions[3] = own
    chance = token_chance(model, directions, random("tokens"))
    plain, scored = (token_effects(model, directions, 5, one) for one in (None, chance))

    def share(found):
        return float((found.promoted == 7).any(1).float().mean())

    def either(found):
        return float(((found.promoted == 7) | (found.suppressed == 7)).any(1).float().mean())

    assert either(plain) > 0.8
    assert either(scored) < 0.5
    assert share(scored) < share(plain)
    assert scored.promoted[3, 0] == 11
    assert scored.promoted_by[3, 0] > 3


def test_z_is_of_the_distribution_of_random_directions(tiny_checkpoint):
    model = load(str(tiny_checkpoint("llama")), {}, device="cpu")
    base = torch.randn(400, model.d_model, generator=random("many"))
    # Directions that share a part, as latents of one massive direction do.
    directions = base + 3 * base[:1]
    chance = token_chance(model, directions, random("tokens"))
    drawn = directions[torch.randperm(400, generator=random("some"))[:200]]
    every = token_effects(model, drawn, model.vocab_size, chance)
    by_token = torch.zeros(200, model.vocab_size).scatter(1, every.promoted, every.promoted_by)
    assert by_token.mean().abs() < 0.1
    assert by_token.std() == pytest.approx(1.0, abs=0.15)
    few = token_chance(model, directions[:3], random("tokens"))
    assert torch.isfinite(few.spread).all()
    assert (few.spread > 0).all()

"""The chunked divergence against autograd on full logits, and against sums done by hand."""

import math

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, CohereConfig, GraniteConfig

from lorascope.errors import InputError
from lorascope.outputs import sweeps
from lorascope.outputs.divergence import (
    mean_divergence,
    token_losses,
    token_scores,
)
from lorascope.outputs.head import Head, final_states
from lorascope.randomness import generator

TOKENS, WIDTH, VOCABULARY = 23, 16, 301
DIRECTIONS = ("spliced_original", "original_spliced")
HEADS = {
    "plain": {},
    "bias and factor": {"factor": 0.6},
    "soft cap": {"cap": 4.0},
    "all": {"factor": 1.3, "cap": 3.0},
}


def made(name="plain", dtype=torch.float32):
    random = generator(0, "head")
    weight = torch.randn(VOCABULARY, WIDTH, generator=random)
    bias = torch.randn(VOCABULARY, generator=random) if name in ("bias and factor", "all") else None
    return Head(weight.to(dtype), bias, **HEADS[name])


def states():
    random = generator(1, "states")
    spliced, original = torch.randn(2, TOKENS, WIDTH, generator=random)
    return spliced.requires_grad_(), original


def full(spliced, original, head, direction):
    """All logits at once, and PyTorch's own divergence."""
    log_s = functional.log_softmax(head.logits(spliced).float(), -1)
    log_o = functional.log_softmax(head.logits(original).float(), -1)
    one, other = (log_s, log_o) if direction == "spliced_original" else (log_o, log_s)
    # kl_div(input, target) is KL(target, input)
    return functional.kl_div(other, one, reduction="batchmean", log_target=True)


@pytest.fixture(params=[False, True], ids=["in cache", "swept"])
def swept(request, monkeypatch):
    """Scores as of a vocabulary that a cache holds, or as of a larger one, in uneven tiles."""
    ways = []
    if request.param:
        monkeypatch.setattr(sweeps, "_CACHE", 0)
        monkeypatch.setattr(sweeps, "_TILE", 1000)
        monkeypatch.setattr(sweeps.Sweeps, "values", counted(sweeps.Sweeps.values, ways))
    yield request.param
    assert bool(ways) == request.param


def counted(method, calls):
    return lambda *given: calls.append(1) or method(*given)


@pytest.mark.parametrize("chunk", [1, 5 * VOCABULARY, 2**24])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", HEADS)
def test_value_and_gradient_are_autograds(name, direction, chunk, swept):
    head, (spliced, original) = made(name), states()
    expected = full(spliced, original, head, direction)
    (wanted,) = torch.autograd.grad(3 * expected, spliced)
    found = mean_divergence(spliced, original, head, direction, chunk=chunk)
    (gradient,) = torch.autograd.grad(3 * found, spliced)
    assert expected > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert (gradient - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_large_vocabulary_costs_no_digits(direction):
    random = generator(2, "large")
    weight = torch.randn(100_000, 4, generator=random)
    spliced, original = torch.randn(2, 3, 4, generator=random)
    exact, wide = Head(weight.double()), spliced.double().requires_grad_()
    expected = full_in_float64(wide, original.double(), exact, direction)
    (wanted,) = torch.autograd.grad(expected, wide)
    narrow = spliced.clone().requires_grad_()
    found = mean_divergence(narrow, original, Head(weight), direction)
    (gradient,) = torch.autograd.grad(found, narrow)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    again = spliced.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(full(again, original, Head(weight), direction), again)
    error, theirs = ((each - wanted).norm() / wanted.norm() for each in (gradient, by_autograd))
    # sums over so many tokens lose digits in float32 whoever does them
    assert error < max(5e-5, 1.5 * theirs)


def full_in_float64(spliced, original, head, direction):
    log_s, log_o = (head.logits(each).log_softmax(-1) for each in (spliced, original))
    one, other = (log_s, log_o) if direction == "spliced_original" else (log_o, log_s)
    return (one.exp() * (one - other)).sum(-1).mean()


def test_directions_by_hand():
    # two tokens of the vocabulary; odds 4:1 against 1:1
    head = Head(torch.tensor([[1.0], [0.0]]))
    spliced, original = torch.tensor([[math.log(4.0)]]), torch.zeros(1, 1)
    of_spliced = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    of_original = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert of_spliced < 0.9 * of_original
    for direction, expected in zip(DIRECTIONS, (of_spliced, of_original), strict=True):
        assert mean_divergence(spliced, original, head, direction).item() == pytest.approx(expected)
        both = token_scores(spliced, original, torch.tensor([1]), head, direction)
        assert [each.tolist() for each in both] == [
            pytest.approx([expected]),
            pytest.approx([-math.log(0.2)]),
        ]
    losses = token_losses(spliced.repeat(2, 1), torch.tensor([0, 1]), head)
    assert losses.tolist() == pytest.approx([-math.log(0.8), -math.log(0.2)])


def test_parts_of_a_step_add_up():
    head, (spliced, original) = made("soft cap"), states()
    whole = mean_divergence(spliced, original, head)
    parts = [
        mean_divergence(spliced[rows], original[rows], head, tokens=TOKENS)
        for rows in (slice(0, 9), slice(9, TOKENS))
    ]
    torch.testing.assert_close(sum(parts), whole)
    (wanted,) = torch.autograd.grad(whole, spliced)
    (found,) = torch.autograd.grad(sum(parts), spliced)
    torch.testing.assert_close(found, wanted)


def test_equal_models_do_not_diverge(swept):
    head, (spliced, _) = made("all"), states()
    loss = mean_divergence(spliced, spliced.detach().clone(), head)
    (gradient,) = torch.autograd.grad(loss, spliced)
    assert abs(loss.item()) < 1e-6
    assert gradient.abs().max() < 1e-6
    assert mean_divergence(spliced[:0], spliced[:0], head, tokens=4).item() == 0
    none = torch.zeros(0, dtype=torch.long)
    assert [each.shape for each in token_scores(spliced[:0], spliced[:0], none, head)] == [(0,)] * 2


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["plain", "soft cap"])
def test_autocast_is_within_the_rounding_of_bfloat16(name, direction, swept):
    head, (spliced, original) = made(name), states()
    exact = full(spliced, original, head, direction)
    (wanted,) = torch.autograd.grad(exact, spliced)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = full(spliced, original, head, direction)
        found = mean_divergence(spliced, original, head, direction, chunk=7 * VOCABULARY)
    (obvious,) = torch.autograd.grad(theirs, spliced)
    (gradient,) = torch.autograd.grad(found, spliced)
    assert found.dtype == gradient.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-3)
    assert found.item() != pytest.approx(exact.item(), rel=1e-7)  # products were in bfloat16
    error = (gradient - wanted).norm() / wanted.norm()
    assert error < 2e-2
    assert error < 1.2 * (obvious - wanted).norm() / wanted.norm()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["plain", "all"])
def test_logits_far_apart_between_tiles_and_models_cost_no_digits(name, direction, swept):
    head, (spliced, original) = made(name), states()
    # Some tokens' logits lie hundreds of nats from others', and the models' from each other's.
    weight = head.weight.clone()
    weight[:120] *= 20
    head, spliced = Head(weight, head.bias, head.factor, head.cap), spliced.detach() * 1.5
    wide = Head(weight.double(), None if head.bias is None else head.bias.double(), **HEADS[name])
    exact = spliced.double().requires_grad_()
    expected = full_in_float64(exact, original.double(), wide, direction)
    (wanted,) = torch.autograd.grad(expected, exact)
    found = mean_divergence(spliced.requires_grad_(), original, head, direction)
    (gradient,) = torch.autograd.grad(found, spliced)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (gradient - wanted).norm() < 1e-3 * wanted.norm()


def test_a_model_in_bfloat16_gets_gradients_in_bfloat16(swept):
    head, (spliced, original) = made(dtype=torch.bfloat16), states()
    low = spliced.detach().bfloat16().requires_grad_()
    mean_divergence(low, original.bfloat16(), head).backward()
    (wanted,) = torch.autograd.grad(full(spliced, original, made(), DIRECTIONS[0]), spliced)
    assert low.grad.dtype == torch.bfloat16
    assert (low.grad.float() - wanted).norm() < 3e-2 * wanted.norm()


def test_full_logits_are_never_held(swept):
    head, (spliced, original) = made(), states()
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            largest.extend(
                t.numel()
                for t in (found if isinstance(found, tuple) else [found])
                if isinstance(t, torch.Tensor)
            )
            return found

    with Watch():
        mean_divergence(spliced, original, head, chunk=4 * VOCABULARY).backward()
    assert 4 * VOCABULARY <= max(largest) <= max(2 * 4 * VOCABULARY, VOCABULARY * WIDTH)
    with Watch():
        full(spliced, original, head, DIRECTIONS[0])
    assert max(largest) == TOKENS * VOCABULARY


@pytest.mark.parametrize(
    "architecture", ["llama", "gemma2", "gpt2", "gpt_neox", "qwen2", "qwen3", "cohere", "granite"]
)
@pytest.mark.parametrize("tied", [False, True])
def test_final_states_and_head_are_the_models_logits(architecture, tied, tiny_model, tokens):
    if architecture in ("cohere", "granite"):
        model = scaled(architecture, tied)
    else:
        changes = {"final_logit_softcapping": 0.7} if architecture == "gemma2" else {}
        model = tiny_model(architecture, tie_word_embeddings=tied, **changes)
    ids, mask = tokens
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits
        head, found = Head.of(model), final_states(model, ids, mask)
        torch.testing.assert_close(head.logits(found), expected)
    inputs = model.get_input_embeddings().weight
    assert (head.weight.data_ptr() == inputs.data_ptr()) == tied
    if architecture == "gemma2":
        assert expected.abs().max() < 0.7


def scaled(architecture, tied):
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    config = (
        CohereConfig(**sizes, logit_scale=0.3)
        if architecture == "cohere"
        else GraniteConfig(**sizes, logits_scaling=3.0)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def test_a_head_of_another_kind_is_refused(tiny_model):
    model = tiny_model("llama")
    model.lm_head.register_forward_hook(lambda _module, _inputs, output: output.square())
    with pytest.raises(InputError, match="cannot be fitted"):
        Head.of(model)

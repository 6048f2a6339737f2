"""The adapter's formula, its gradients, and what it does to a model while it is attached."""

import pytest
import torch

from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError
from lorascope.geometry.chance import isotropic
from lorascope.latent_adapters import adapter as module
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.sparsity import HardConcrete, TopM
from lorascope.randomness import generator

D, N, R = 8, 20, 3


def dictionary(kind="topk", d=D, n=N):
    directions = isotropic(n, d, generator(0, "directions"))
    bias = 0.3 * torch.randn(d, generator=generator(1))
    maps = (directions.T + 0.1, torch.zeros(n), directions, bias)
    if kind == "topk":
        return TopKDictionary(*maps, k=4)
    return JumpReluDictionary(*maps, threshold=torch.full((n,), 0.2))


def adapter(kind="topk", scale=0.7, **options):
    made = LatentAdapter(dictionary(kind), R, scale=scale, generator=generator(2), **options)
    with torch.no_grad():
        made.scale.mul_(torch.tensor([1.0, -2.0, 0.5]))
    return made


def rows(count=30):
    return torch.randn(count, D, generator=generator(3))


def by_the_formula(made, x):
    """Column- and row-normalised factors written out; the decoder bias is not added."""
    a = (made.read / made.read.norm(dim=1, keepdim=True)).T
    b = made.write / made.write.norm(dim=1, keepdim=True)
    assert torch.allclose(a.norm(dim=0), torch.ones(R))
    z = made.dictionary.encode(x)
    return x + (((z @ a) * made.scale) @ b) @ made.dictionary.directions


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_it_is_the_formula(kind):
    made, x = adapter(kind), rows()
    assert (made(x) - x).norm() > 1
    torch.testing.assert_close(made(x), by_the_formula(made, x), atol=1e-5, rtol=1e-5)
    # Where no latent is active nothing is added, the decoder's bias least of all.
    silent = made.dictionary.decoder_bias - 5 * made.dictionary.encoder.sum(1)
    quiet = silent[None]
    if not made.dictionary.encode(quiet).any():
        torch.testing.assert_close(made(quiet), quiet)


def test_gradients_are_autograd_s_whatever_the_chunks(monkeypatch):
    x = rows().requires_grad_()
    weights = torch.randn(30, D, generator=generator(4))
    found = []
    for held, run in ((7 * N, lambda m: m(x)), (2**26, lambda m: by_the_formula(m, x))):
        monkeypatch.setattr(module, "_HELD", held)
        made = adapter("jumprelu")
        x.grad = None
        (run(made) * weights).sum().backward()
        found.append([made.read.grad, made.write.grad, made.scale.grad, x.grad.clone()])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def test_a_scale_of_zero_changes_nothing_and_can_leave_zero():
    made, x = adapter(scale=0.0), rows()
    assert torch.equal(made(x), x)
    made(x).square().sum().backward()
    assert (made.scale.grad.abs() > 0).all()


def test_only_masked_tokens_are_changed():
    made, x = adapter(), rows(6).reshape(2, 3, D)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    changed = (made(x, mask) != x).any(-1)
    assert torch.equal(changed, mask)
    assert torch.equal(made(x, mask)[mask], made(x)[mask])


def test_the_dictionary_is_no_part_of_the_state():
    made = adapter()
    assert set(made.state_dict()) == {"read", "write", "scale"}
    assert [p.requires_grad for p in made.parameters()] == [True] * 3
    assert not any(p.requires_grad for p in made.dictionary.parameters())


def test_pairs_write_the_change_out():
    made, x = adapter(sparsity=TopM(m=3, annealed=0)), rows()
    inputs, outputs = made.support()
    assert len(inputs) <= 3 * R
    assert len(outputs) <= 3 * R
    pairs = made.pairs(most=10**6)
    assert abs(pairs[0].weight) == max(abs(pair.weight) for pair in pairs)
    z, change = made.dictionary.encode(x), torch.zeros_like(x)
    for pair in pairs:
        written = z[:, pair.read, None] * made.dictionary.directions[pair.written]
        change += pair.weight * written
    torch.testing.assert_close(x + change, made(x), atol=1e-5, rtol=1e-5)


def test_gates_are_sampled_while_training_and_still_afterwards():
    made, x = adapter(sparsity=HardConcrete()), rows()
    made.at(0.5, generator(5))
    assert not torch.equal(made(x), made(x))
    made.at(1.0)
    assert torch.equal(made(x), made(x))


def test_attached_to_a_model_and_taken_off(tiny_model):
    model = tiny_model("llama").eval()
    ids = torch.arange(12).reshape(2, 6) + 3
    made = LatentAdapter(dictionary(d=32, n=48), 2, scale=3.0, generator=generator(6))
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with made.attached(model, "layers.1"):
            during = model(input_ids=ids).logits
        with made.attached(model, "layers.1", [3, 4, 5, 6, 9, 10, 11, 12]):
            late = model(input_ids=ids).logits
        after = model(input_ids=ids).logits
    assert (during - before).abs().max() > 1e-3
    assert torch.equal(late[:, :4], before[:, :4])
    assert (late[:, 4:] - before[:, 4:]).abs().max() > 1e-3
    assert torch.equal(after, before)


def test_a_rank_of_nothing_is_refused():
    with pytest.raises(InputError, match="rank 0: give a rank of 1 or more"):
        LatentAdapter(dictionary(), 0)

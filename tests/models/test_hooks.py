"""Capture reads what the model computes and no more; replace changes just that."""

import pytest
import torch

from lorascope.errors import InputError
from lorascope.models.hooks import capture, replace, run_until
from lorascope.models.sites import Site, block_list

ARCHITECTURES = ("llama", "gemma2", "gpt2", "gpt_neox", "qwen2", "qwen3")
IDS = torch.arange(24).reshape(2, 12) + 3


def n_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_capture_is_the_hidden_state(tiny_model, architecture):
    model = tiny_model(architecture)
    states = model(input_ids=IDS, output_hidden_states=True).hidden_states
    at = run_until(model, [Site(1), Site(0)], IDS)
    assert list(at) == [Site(0), Site(1)]
    for site, hidden in at.items():
        assert hidden.shape == (2, 12, 32)
        assert torch.equal(hidden, states[site.index + 1])
    assert not torch.equal(at[Site(0)], at[Site(1)])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_last_block_is_read_before_the_final_norm(tiny_model, architecture):
    model = tiny_model(architecture)
    last = run_until(model, [Site(2)], IDS)[Site(2)]
    backbone = model.base_model
    norm = getattr(
        backbone, {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(architecture, "norm")
    )
    states = model(input_ids=IDS, output_hidden_states=True).hidden_states
    assert torch.equal(norm(last), states[-1])
    assert not torch.allclose(last, states[-1])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_nothing_runs_after_the_last_site(tiny_model, architecture):
    model = tiny_model(architecture)
    ran = []
    for index, block in enumerate(block_list(model)):
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    model.lm_head.register_forward_pre_hook(lambda *_: ran.append("head"))
    hooks = n_hooks(model)
    run_until(model, [Site(1)], IDS)
    assert ran == [0, 1]
    assert n_hooks(model) == hooks
    with capture(model, [Site(1)], stop=False) as at:
        logits = model(input_ids=IDS).logits
    assert ran == [0, 1, 0, 1, 2, "head"]
    assert logits.shape == (2, 12, 64)
    assert Site(1) in at


def test_model_works_as_before_after_a_stopped_pass(tiny_model):
    model = tiny_model("qwen2")
    before = model(input_ids=IDS, output_hidden_states=True)
    run_until(model, [Site(0)], IDS)
    after = model(input_ids=IDS, output_hidden_states=True)
    assert torch.equal(before.logits, after.logits)
    assert len(after.hidden_states) == 4


def test_hooks_go_when_the_pass_fails(tiny_model):
    model = tiny_model()
    with pytest.raises(IndexError), capture(model, [Site(1)]):
        model(input_ids=torch.tensor([[10_000]]))
    with pytest.raises(ZeroDivisionError), replace(model, Site(1), lambda hidden: hidden):
        raise ZeroDivisionError
    assert n_hooks(model) == 0
    with pytest.raises(InputError, match="no site to capture"), capture(model, []):
        pass


def test_nan_names_the_site(tiny_model):
    model = tiny_model()
    block_list(model)[1].mlp.down_proj.weight.data[3, 4] = float("nan")
    assert Site(0) in run_until(model, [Site(0)], IDS)
    with pytest.raises(InputError, match=r"layers\.1 gives NaN or infinity at 24 of 24 tokens"):
        run_until(model, [Site(0), Site(1), Site(2)], IDS)


def test_nan_at_padding_is_tolerated(tiny_model):
    model = tiny_model()
    mask = torch.ones_like(IDS)
    mask[0, -2:] = 0
    poisoned = {"at": (0, 11)}

    def poison(_block, _inputs, output):
        output[poisoned["at"]] = float("inf")
        return output

    block_list(model)[0].register_forward_hook(poison)
    assert Site(0) in run_until(model, [Site(0)], IDS, mask)
    poisoned["at"] = (0, 9)
    with pytest.raises(InputError, match=r"layers\.0 gives NaN or infinity at 1 of 24"):
        run_until(model, [Site(0)], IDS, mask)


def test_tuples_are_read_and_kept(tiny_model):
    model = tiny_model()
    block = block_list(model)[1]
    plain = run_until(model, [Site(1)], IDS)[Site(1)]
    block.register_forward_hook(lambda *arguments: (arguments[2], "cache"))
    assert torch.equal(run_until(model, [Site(1)], IDS)[Site(1)], plain)
    seen = []
    with replace(model, Site(1), lambda hidden: hidden + 1):
        block.register_forward_hook(lambda *arguments: seen.append(arguments[2]) or arguments[2][0])
        model(input_ids=IDS)
    assert torch.equal(seen[0][0], plain + 1)
    assert seen[0][1] == "cache"


def test_what_is_no_stream_is_refused(tiny_model):
    model = tiny_model()
    block_list(model)[0].register_forward_hook(lambda *arguments: arguments[2][0])
    with pytest.raises(
        InputError, match=r"layers\.0 gives \(12, 32\), not \(batch, seq, d_model\)"
    ):
        run_until(model, [Site(0)], IDS)


def test_replace_puts_a_value_in_and_passes_gradients(tiny_model):
    model = tiny_model("gemma2")
    plain = model(input_ids=IDS).logits
    with replace(model, Site(1), lambda hidden: hidden):
        assert torch.equal(model(input_ids=IDS).logits, plain)
    shift = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    with replace(model, Site(1), lambda hidden: hidden + shift):
        loss = model(input_ids=IDS).logits.square().mean()
        loss.backward()
    assert shift.grad.abs().sum() > 0
    step = 1e-2 * shift.grad / shift.grad.norm()
    with replace(model, Site(1), lambda hidden: hidden + step):
        moved = model(input_ids=IDS).logits.square().mean()
    assert (moved - loss).item() == pytest.approx(1e-2 * shift.grad.norm().item(), rel=0.1)
    assert torch.equal(model(input_ids=IDS).logits, plain)


def test_replace_refuses_another_shape(tiny_model):
    model = tiny_model()
    with (
        pytest.raises(
            InputError, match=r"replaces the stream at layers\.2 has shape \(2, 12, 31\)"
        ),
        replace(model, Site(2), lambda hidden: hidden[..., 1:]),
    ):
        model(input_ids=IDS)

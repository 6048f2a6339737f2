"""Splicing, tested by intervention: what is spliced is seen, what is taken out leaves no trace."""

from contextlib import ExitStack

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lorascope.errors import InputError
from lorascope.models.hooks import capture, replace, run_until
from lorascope.models.sites import Site
from lorascope.outputs.splicing import place, spliced

ARCHITECTURES = ("llama", "gemma2", "gpt2", "gpt_neox", "qwen2", "qwen3")
KINDS = ("topk", "batch_topk", "jumprelu", "relu", "gated")


def logits(model, tokens):
    ids, mask = tokens
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_stream_is_the_reconstruction_and_comes_back(architecture, tiny_model, make, tokens):
    model, dictionary = tiny_model(architecture), make("topk")
    before = logits(model, tokens)
    (stream,) = run_until(model, [Site(1)], *tokens).values()
    with spliced(model, {"layers.1": dictionary}), capture(model, [Site(1)], stop=False) as seen:
        during = logits(model, tokens)
    real = tokens[1].bool()
    # hooks run in the order they are set: what is captured stands after the splice
    torch.testing.assert_close(seen[Site(1)][real], dictionary(stream)[real])
    assert torch.equal(seen[Site(1)][~real], stream[~real])
    assert (during - before)[real].abs().max() > 0.1
    assert torch.equal(logits(model, tokens), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_identity_dictionary_changes_nothing(
    architecture, tiny_model, identity_dictionary, tokens
):
    model = tiny_model(architecture)
    before = logits(model, tokens)
    with spliced(model, dict.fromkeys((0, 1, 2), identity_dictionary)) as splice:
        assert torch.equal(logits(model, tokens), before)
        with splice.off():
            assert torch.equal(logits(model, tokens), before)


def test_off_is_the_bare_model_within_the_splice(tiny_model, make, tokens):
    model = tiny_model()
    before = logits(model, tokens)
    with spliced(model, {"1": make()}) as splice:
        changed = logits(model, tokens)
        with splice.off():
            assert torch.equal(logits(model, tokens), before)
        assert torch.equal(logits(model, tokens), changed)
    assert not torch.equal(changed, before)


def test_an_error_inside_still_takes_the_splice_out(tiny_model, make, tokens):
    model = tiny_model()
    before = logits(model, tokens)
    with pytest.raises(KeyError), spliced(model, {"1": make()}):
        raise KeyError
    assert torch.equal(logits(model, tokens), before)
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("peft", [False, True])
def test_special_tokens_keep_their_stream(peft, tiny_model, make, tokens):
    model, dictionary = tiny_model(), make()
    (stream,) = run_until(model, [Site(1)], *tokens).values()
    if peft:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    with spliced(model, {1: dictionary}, special_ids=[0, 5]), ExitStack() as stack:
        seen = stack.enter_context(capture(model, [Site(1)], stop=False))
        logits(model, tokens)
    left = (tokens[0] == 0) | (tokens[0] == 5) | (tokens[1] == 0)
    assert left[:, 0].all()
    assert torch.equal(seen[Site(1)][left], stream[left])
    torch.testing.assert_close(seen[Site(1)][~left], dictionary(stream)[~left])


def test_without_token_ids_special_tokens_cannot_be_told(tiny_model, make, tokens):
    model = tiny_model()
    vectors = model.get_input_embeddings()(tokens[0])
    with spliced(model, {1: make()}, special_ids=[0]):
        logits(model, tokens)  # its ids must not be taken for those of the next pass
        with pytest.raises(InputError, match="not called with token ids"):
            model(inputs_embeds=vectors)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_term_leaves_the_output_and_only_the_output(kind, tiny_model, make, tokens):
    model, dictionary = tiny_model(), make(kind)
    before = logits(model, tokens)
    start = torch.randn(3, 10, 32, generator=torch.Generator().manual_seed(3))
    gradients = []
    for error_term in (False, True):
        x = start.clone().requires_grad_()
        with (
            replace(model, Site(0), lambda _, x=x: x),
            spliced(model, {0: dictionary}, error_term=error_term),
            capture(model, [Site(0)], stop=False) as seen,
        ):
            model(input_ids=tokens[0]).logits.square().sum().backward()
        gradients.append(x.grad)
        assert torch.equal(seen[Site(0)], start) == error_term
    with spliced(model, {0: dictionary}, error_term=True):
        assert torch.equal(logits(model, tokens), before)
    assert not torch.allclose(*gradients)


def plain(kind, one, x):
    """The dictionary's formula written out, a row at a time for TopK."""
    pre = (x - one.decoder_bias) @ one.encoder + one.encoder_bias
    if kind == "relu":
        z = pre.clamp(min=0)
    elif kind == "topk":
        z = torch.zeros_like(pre)
        for place in [(i, j) for i in range(pre.shape[0]) for j in range(pre.shape[1])]:
            kept = sorted(range(pre.shape[2]), key=lambda n, p=place: -pre[(*p, n)].item())[:12]
            for n in kept:
                if pre[(*place, n)] > 0:
                    z[(*place, n)] = pre[(*place, n)]
    elif kind == "gated":
        magnitude = (pre - one.encoder_bias) * one.log_scale.exp() + one.magnitude_bias
        z = torch.where(pre > 0, magnitude.clamp(min=0), torch.zeros(()))
    else:
        z = torch.where(pre > one.threshold, pre, torch.zeros(()))
    return z @ one.directions + one.decoder_bias


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_stream_as_by_the_plain_formula(kind, tiny_model, make):
    model, dictionary = tiny_model(), make(kind)
    ids = torch.arange(6).reshape(2, 3) + 5
    start = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(3))
    found = []
    for condition in ("spliced", "plain"):
        x = start.clone().requires_grad_()
        put = x if condition == "spliced" else plain(kind, dictionary, x)
        with ExitStack() as stack:
            stack.enter_context(replace(model, Site(1), lambda _, put=put: put))
            if condition == "spliced":
                stack.enter_context(spliced(model, {1: dictionary}))
            model(input_ids=ids).logits.log_softmax(-1)[..., 7].sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert found[0].abs().max() > 1e-3
    assert all(not tensor.requires_grad for tensor in dictionary.buffers())


@pytest.mark.parametrize("kind", ["topk", "batch_topk", "jumprelu"])
def test_gradients_through_a_splice_are_finite_differences(kind, tiny_model, make):
    # a model whose norms stay in float64
    model, dictionary = tiny_model("gpt2").double(), make(kind).double()
    ids = torch.arange(6).reshape(2, 3) + 5
    random = torch.Generator().manual_seed(3)
    start, step = torch.randn(2, 2, 3, 32, generator=random, dtype=torch.float64)
    step *= 1e-6 / step.norm()

    def value(x):
        with replace(model, Site(1), lambda _: x), spliced(model, {1: dictionary}):
            return model(input_ids=ids).logits.log_softmax(-1)[..., 7].sum()

    x = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(x), x)
    difference = (value(start + step) - value(start - step)) / 2
    assert gradient.norm() > 0.1
    assert difference.item() == pytest.approx((gradient * step).sum().item(), rel=1e-4)


def test_several_sites_at_once_each_reads_what_the_one_before_left(tiny_model, make, tokens):
    model, first, second = tiny_model(), make(seed=1), make("jumprelu", seed=2)
    with spliced(model, {0: first}):
        (stream,) = run_until(model, [Site(1)], *tokens).values()
    with (
        spliced(model, {"layers.1": second, "layers.0": first}),
        capture(model, [Site(1)], stop=False) as seen,
    ):
        logits(model, tokens)
    real = tokens[1].bool()
    torch.testing.assert_close(seen[Site(1)][real], second(stream)[real])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "at least one"),
        ([("layers.1", "topk"), ("1", "relu")], "two dictionaries at layers.1"),
        ([("layers.7", "topk")], "does not exist"),
    ],
)
def test_sites_that_cannot_be(given, words, tiny_model, make):
    with pytest.raises(InputError, match=words) as caught:
        place(tiny_model(), [(site, make(kind)) for site, kind in given])
    assert "\n" not in str(caught.value)


def test_dictionaries_that_do_not_fit(tiny_model, make):
    with pytest.raises(InputError, match="width 24, the model's are 32"):
        place(tiny_model(), {1: make(width=24)})
    elsewhere = make(site="layers.0")
    with pytest.raises(InputError, match=r"made for layers\.0, not for layers\.1"):
        place(tiny_model(), {1: elsewhere})
    assert place(tiny_model(), {1: elsewhere}, force=True) == {Site(1): elsewhere}

"""A pass resumed from a site is the pass that a hook on the whole model gives."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig

from lorascope.errors import InputError
from lorascope.models.adapted import AdaptedModel, load
from lorascope.models.freezing import fingerprint
from lorascope.models.hooks import replace
from lorascope.models.interventions import record, unembed
from lorascope.models.sites import Site, block_list

TARGETS = {
    "llama": "q_proj",
    "gemma2": "q_proj",
    "gpt2": "c_attn",
    "gpt_neox": "query_key_value",
    "qwen2": "q_proj",
    "qwen3": "q_proj",
}
SITES = [Site(0), Site(1), Site(2)]
IDS = torch.arange(24).reshape(2, 12) + 3
MASK = torch.ones_like(IDS)
MASK[1, 9:] = 0


@pytest.fixture(scope="module", params=list(TARGETS))
def model(request, tiny_checkpoint, save_adapter, tmp_path_factory):
    folder = save_adapter(
        tmp_path_factory.mktemp("adapter"), request.param, target_modules=[TARGETS[request.param]]
    )
    return load(str(tiny_checkpoint(request.param)), {"a": str(folder)}, device="cpu")


@pytest.fixture(scope="module")
def llama(tiny_checkpoint, save_adapter, tmp_path_factory):
    folder = save_adapter(tmp_path_factory.mktemp("adapter"), target_modules=["q_proj"])
    return load(str(tiny_checkpoint()), {"a": str(folder)}, device="cpu")


@pytest.fixture(scope="module")
def bloom():
    """A model whose blocks return tuples."""
    config = BloomConfig(vocab_size=64, hidden_size=32, n_layer=3, n_head=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AdaptedModel(AutoModelForCausalLM.from_config(config).eval(), None, "bloom")


def moved(stream):
    noise = torch.randn(stream.shape, generator=torch.Generator().manual_seed(0))
    return stream + noise


def state(model):
    modules = list(model.module.modules())
    return (
        sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules),
        [m for m in modules if "forward" in m.__dict__],
        model.current,
        model.module.training,
        [p.requires_grad for p in model.module.parameters()],
        fingerprint(model.module),
    )


@torch.no_grad()
def test_a_pass_resumed_with_its_own_stream_is_itself_bit_for_bit(model):
    recorded = {variant: record(model, variant, SITES, IDS, MASK) for variant in model.variants}
    assert (recorded["a"].logits - recorded["base"].logits).abs().max() > 1e-3
    for variant, one in recorded.items():
        with model.variant(variant) as module:
            whole = module(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
        assert torch.equal(one.logits, whole)
        for site in SITES:
            assert torch.equal(one.resume(site, one.streams[site]), whole)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["base", "a"])
def test_another_stream_is_what_a_hook_on_the_whole_model_gives(model, variant):
    before = state(model)
    wanted = torch.zeros_like(MASK, dtype=torch.bool)
    wanted[0, 2:9] = wanted[1, 4:6] = True
    recorded = record(model, variant, SITES, IDS, MASK, wanted)
    for site in SITES:
        stream = moved(recorded.streams[site])
        with model.variant(variant) as module, replace(module, site, lambda _, s=stream: s):
            expected = module(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
        found = recorded.resume(site, stream)
        torch.testing.assert_close(found, expected[wanted], atol=1e-5, rtol=1e-5)
        assert (found - recorded.logits).abs().max() > 1e-2
    assert state(model) == before


@torch.no_grad()
def test_the_adapted_stream_after_the_last_block_gives_the_adapted_logits(model):
    base, adapted = (record(model, variant, SITES, IDS, MASK) for variant in model.variants)
    assert not torch.equal(base.logits, adapted.logits)
    assert torch.equal(base.resume(SITES[2], adapted.streams[SITES[2]]), adapted.logits)
    # Later blocks are adapted too: the stream after the first does not bring all.
    early = base.resume(SITES[0], adapted.streams[SITES[0]])
    assert (early - adapted.logits).abs().max() > 1e-3
    assert (early - base.logits).abs().max() > 1e-3


@torch.no_grad()
def test_unembed_is_the_last_stream_s_logits(model):
    recorded = record(model, "base", SITES, IDS, MASK)
    stream = recorded.streams[SITES[2]].flatten(0, 1)
    found = unembed(model, "base", stream)
    torch.testing.assert_close(found, recorded.logits.flatten(0, 1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_blocks_that_return_tuples(bloom):
    recorded = record(bloom, "base", SITES, IDS, MASK)
    assert set(recorded.blocks) != {None}
    for site in SITES:
        assert torch.equal(recorded.resume(site, recorded.streams[site]), recorded.logits)
        assert not torch.equal(
            recorded.resume(site, moved(recorded.streams[site])), recorded.logits
        )


def test_blocks_before_the_site_do_not_run(llama):
    recorded = record(llama, "base", SITES, IDS, MASK)
    # The first time, whether blocks can be passed over is tried against a whole pass.
    recorded.resume(SITES[1], recorded.streams[SITES[1]])
    ran = []
    handles = [
        block.mlp.register_forward_hook(lambda *_, i=index: ran.append(i))
        for index, block in enumerate(block_list(llama.module))
    ]
    recorded.resume(SITES[1], recorded.streams[SITES[1]])
    for handle in handles:
        handle.remove()
    assert ran == [2]


def test_gradients_flow_back_to_the_stream(llama):
    recorded = record(llama, "a", SITES, IDS, MASK)
    stream = recorded.streams[SITES[1]].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(recorded.resume(SITES[1], stream).square().mean(), stream)
    step = 1e-3 * moved(torch.zeros_like(stream))
    up, down = (
        recorded.resume(SITES[1], (stream + sign * step).detach()).square().mean()
        for sign in (1, -1)
    )
    assert float((up - down) / 2) == pytest.approx(float((gradient * step).sum()), rel=1e-2)
    assert all(parameter.grad is None for parameter in llama.module.parameters())


def test_a_failed_pass_leaves_nothing_behind(llama):
    before = state(llama)
    recorded = record(llama, "a", SITES, IDS, MASK)
    handle = llama.module.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        recorded.resume(SITES[1], recorded.streams[SITES[1]])
    handle.remove()
    with pytest.raises(InputError, match=r"layers\.1 has shape \(2, 12, 31\)"):
        recorded.resume(SITES[1], recorded.streams[SITES[1]][..., 1:])
    assert state(llama) == before


def test_what_stood_in_place_of_a_block_s_forward_comes_back(llama):
    block = block_list(llama.module)[0]
    own = block.forward
    block.forward = lambda *args, **named: own(*args, **named)
    wrapped = block.forward
    recorded = record(llama, "base", SITES, IDS, MASK)
    recorded.resume(SITES[1], recorded.streams[SITES[1]])
    assert block.__dict__.pop("forward") is wrapped

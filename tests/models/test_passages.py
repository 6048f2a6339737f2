"""A pass begun at a site and at a position is the pass that a hook on the whole model gives."""

from collections import Counter

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    Gemma4TextConfig,
    GemmaConfig,
    MixtralConfig,
    Phi3Config,
)

import lorascope
from lorascope.models.adapted import AdaptedModel, load
from lorascope.models.freezing import fingerprint
from lorascope.models.hooks import replace, run_until
from lorascope.models.interventions import record
from lorascope.models.passages import beginning_at, open_passage
from lorascope.models.sites import Site, block_list

TARGETS = {
    "llama": "q_proj",
    "gemma2": "q_proj",
    "gpt2": "c_attn",
    "gpt_neox": "query_key_value",
    "qwen2": "q_proj",
    "qwen3": "q_proj",
}
_SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
OTHERS = {
    "gemma": lambda: GemmaConfig(**_SIZES, head_dim=8),
    "gemma3": lambda: Gemma3TextConfig(**_SIZES, head_dim=8, sliding_window=6),
    "mixtral": lambda: MixtralConfig(**_SIZES, num_local_experts=4),
    "phi3": lambda: Phi3Config(**_SIZES, pad_token_id=0),
    "bloom": lambda: BloomConfig(vocab_size=64, hidden_size=32, n_layer=3, n_head=4),
}
SITES = [Site(0), Site(1), Site(2)]
IDS = torch.randint(3, 60, (14,), generator=torch.Generator().manual_seed(0))
WANTED = torch.zeros(14, dtype=torch.bool)
WANTED[[3, 7, 8, 12]] = True


def other(name, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(OTHERS[name]())
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return AdaptedModel(model.eval().requires_grad_(False), None, name)


@pytest.fixture(scope="module", params=[*TARGETS, *OTHERS])
def model(request, tiny_checkpoint, save_adapter, tmp_path_factory):
    if request.param in OTHERS:
        return other(request.param)
    folder = save_adapter(
        tmp_path_factory.mktemp("adapter"), request.param, target_modules=[TARGETS[request.param]]
    )
    return load(str(tiny_checkpoint(request.param)), {"a": str(folder)}, device="cpu")


@pytest.fixture
def llama(tiny_model):
    """A model of one's own, to be spoilt."""
    return AdaptedModel(tiny_model("llama"), None, "llama")


def opened(model, variant, site, objective=None):
    with model.variant(variant) as module:
        stream = run_until(module, [site], IDS[None])[site][0]
    beginning = beginning_at(model, variant, site, IDS)
    return open_passage(model, variant, site, IDS, stream, WANTED, beginning, objective)


def moved(passage, begin, count=3):
    random = torch.Generator().manual_seed(begin)
    noise = torch.randn(count, len(IDS) - begin, 32, generator=random)
    return passage.stream[begin:] + passage.stream.std() * noise


@torch.no_grad()
def whole(passage, streams, begin):
    """Logits of the wanted positions from `begin` on, by a hook on all of the model."""
    count = len(streams)
    full = torch.cat([passage.stream[:begin].expand(count, -1, -1), streams], 1)
    with (
        passage.model.variant(passage.variant) as module,
        replace(module, passage.site, lambda _: full),
    ):
        found = module(input_ids=IDS.expand(count, -1), use_cache=False).logits
    return found[:, begin:][:, WANTED[begin:]]


def require_same(passage):
    for begin in (0, 5, 8):
        streams = moved(passage, begin)
        expected = whole(passage, streams, begin)
        found = passage.resume(streams, begin)
        assert found.shape == expected.shape
        unmoved = passage.logits[-expected.shape[1] :]
        assert (expected - unmoved).abs().amax((1, 2)).min() > 0.05
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_pass_from_a_site_and_a_position_is_the_whole_pass(model):
    before = fingerprint(model.module)
    for variant in model.variants:
        for site in SITES:
            passage = opened(model, variant, site)
            with model.variant(variant) as module:
                expected = module(input_ids=IDS[None], use_cache=False).logits[0, WANTED]
            torch.testing.assert_close(passage.logits, expected, atol=1e-5, rtol=1e-5)
            require_same(passage)
    assert fingerprint(model.module) == before
    assert model.current == "base"
    assert all(not m._forward_hooks and "forward" not in m.__dict__ for m in model.module.modules())


def test_what_every_architecture_allows(model):
    # All of these take keys and values of earlier positions; none shares them between blocks.
    for site in SITES:
        beginning = beginning_at(model, "base", site, IDS)
        assert beginning.keeps
        assert beginning.start.skips


@torch.no_grad()
def test_nothing_before_the_site_or_the_position_runs(llama):
    passage = opened(llama, "base", Site(1))
    passage.resume(moved(passage, 6), 6)
    ran = Counter()
    blocks = block_list(llama.module)
    parts = {
        **{f"attention {i}": block.self_attn.q_proj for i, block in enumerate(blocks)},
        **{f"mlp {i}": block.mlp.up_proj for i, block in enumerate(blocks)},
        "head": llama.module.lm_head,
    }
    handles = [
        part.register_forward_hook(
            lambda _, given, __, name=name: ran.update({name: given[0].shape[:2].numel()})
        )
        for name, part in parts.items()
    ]
    passage.resume(moved(passage, 6), 6)
    for handle in handles:
        handle.remove()
    # Three changes; eight positions from the sixth on, three of which are wanted.
    assert ran == {"attention 2": 3 * 8, "mlp 2": 3 * 3, "head": 3 * 3}


@torch.no_grad()
def test_faces_that_act_by_hooks(tiny_checkpoint, save_latent_adapter, tmp_path):
    save_latent_adapter(tmp_path)
    paths = {"latent": str(tmp_path / "latent")}
    model = lorascope.load(str(tiny_checkpoint("llama")), paths, device="cpu")
    base, own = (opened(model, variant, Site(0)) for variant in model.variants)
    assert (base.logits - own.logits).abs().max() > 1e-3
    for site in SITES:
        require_same(opened(model, "latent", site))


def test_the_gradient_is_that_of_the_whole_pass(model):
    for site in SITES:
        passage = opened(model, "base", site, lambda logits: logits.square().mean())
        stream = passage.stream[None].clone().requires_grad_()
        with model.variant("base") as module, replace(module, site, lambda _, s=stream: s):
            found = module(input_ids=IDS[None], use_cache=False).logits[0, WANTED]
        (expected,) = torch.autograd.grad(found.square().mean(), stream)
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(passage.gradient, expected[0], atol=1e-6, rtol=1e-3)
        assert not passage.logits.requires_grad


def shared(model):
    """Let the last block read what the first one's attention gave in the same pass."""
    first, _, third = block_list(model.module)
    seen = []
    model.module.register_forward_pre_hook(lambda *_: seen.clear())
    first.self_attn.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    third.self_attn.register_forward_hook(
        lambda _, __, out: (out[0] + seen[-1][:, -out[0].shape[1] :], *out[1:])
    )


@torch.no_grad()
def test_a_block_that_reads_an_earlier_one_makes_all_of_them_run(llama):
    shared(llama)
    beginning = beginning_at(llama, "base", Site(1), IDS)
    assert not beginning.start.skips
    assert not beginning.keeps
    require_same(opened(llama, "base", Site(1)))
    # After the last block there is nothing left to read.
    assert beginning_at(llama, "base", Site(2), IDS).start.skips


@torch.no_grad()
def test_resumed_batches_of_such_a_model_run_whole_too(llama):
    shared(llama)
    recorded = record(llama, "base", SITES, IDS[None], torch.ones(1, 14).long())
    stream = recorded.streams[Site(1)].flip(1)
    with replace(llama.module, Site(1), lambda _: stream):
        expected = llama.module(input_ids=IDS[None], use_cache=False).logits
    torch.testing.assert_close(recorded.resume(Site(1), stream), expected)


@torch.no_grad()
def test_keys_that_blocks_share_make_those_that_give_them_run():
    kinds = ["sliding_attention", "full_attention"] * 2
    more = {"num_hidden_layers": 4, "layer_types": kinds, "num_kv_shared_layers": 2}
    sizes = {**_SIZES, "head_dim": 8, "global_head_dim": 8, "sliding_window": 6, **more}
    tokens = {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(Gemma4TextConfig(**sizes, **tokens))
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    model = AdaptedModel(module.eval().requires_grad_(False), None, "gemma4")
    # Blocks 2 and 3 read the keys of blocks 0 and 1.
    for site in (Site(0), Site(1), Site(2)):
        assert not beginning_at(model, "base", site, IDS).start.skips
        require_same(opened(model, "base", site))
    assert beginning_at(model, "base", Site(3), IDS).start.skips


@torch.no_grad()
def test_keys_that_are_not_kept_make_all_positions_run(llama):
    attention = block_list(llama.module)[2].self_attn
    own = attention.forward

    def forgetful(past_key_values=None, **named):
        return own(past_key_values=None, **named)

    attention.forward = forgetful
    beginning = beginning_at(llama, "base", Site(0), IDS)
    assert beginning.start.skips
    assert not beginning.keeps
    require_same(opened(llama, "base", Site(0)))


@torch.no_grad()
def test_an_mlp_that_mixes_positions_runs_at_all_of_them(llama):
    mlp = block_list(llama.module)[2].mlp
    mlp.register_forward_hook(lambda _, __, out: out + out.mean(1, keepdim=True))
    for site in (Site(0), Site(1)):
        assert not beginning_at(llama, "base", site, IDS).start.thins
        # Its mean over later positions would change earlier ones: nothing can be kept either.
        passage = opened(llama, "base", site)
        streams = moved(passage, 0)
        torch.testing.assert_close(
            passage.resume(streams, 0), whole(passage, streams, 0), atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
def test_longer_windows_are_tried_anew(llama):
    attention = block_list(llama.module)[2].self_attn
    own = attention.forward

    def forgetful_when_long(past_key_values=None, **named):
        long = past_key_values is not None and past_key_values.get_seq_length() > 9
        return own(past_key_values=None if long else past_key_values, **named)

    attention.forward = forgetful_when_long
    assert beginning_at(llama, "base", Site(0), IDS).keeps
    assert not beginning_at(llama, "base", Site(0), IDS.repeat(3)).keeps

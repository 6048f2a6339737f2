"""What an adapter does to the stream, predicted and then looked at in five architectures."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from lorascope.activations.batch import delta
from lorascope.models.adapted import load
from lorascope.models.hooks import run_until
from lorascope.models.sites import Site

TARGETS = {
    "llama": "q_proj",
    "gemma2": "q_proj",
    "gpt2": "c_attn",
    "gpt_neox": "query_key_value",
    "qwen2": "q_proj",
}
ARCHITECTURES = tuple(TARGETS)
SITES = [Site(0), Site(1), Site(2)]
BLOCK, RANK, ALPHA = 1, 4, 12
IDS = torch.arange(24).reshape(2, 12) + 3


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture
def model(architecture, tiny_checkpoint, save_adapter, tmp_path):
    """A model whose adapter sits on one attention map of block 1, and nowhere else."""
    folder = save_adapter(
        tmp_path / "late",
        architecture,
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=[TARGETS[architecture]],
        layers_to_transform=[BLOCK],
        **({"layers_pattern": "h"} if architecture == "gpt2" else {}),
    )
    return load(str(tiny_checkpoint(architecture)), {"late": str(folder)}, device="cpu")


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=IDS).logits


@torch.no_grad()
def seen_by_the_adapted_map(model, architecture, variant):
    """Input and output of the adapted linear map in one pass over `IDS`."""
    seen = []
    with model.variant(variant) as module:
        (path,) = [
            name
            for name, _ in module.named_modules()
            if f".{BLOCK}." in name and name.endswith(TARGETS[architecture])
        ]
        hook = module.get_submodule(path).register_forward_hook(
            lambda _, given, out: seen.append((given[0].clone(), out.clone()))
        )
        module(input_ids=IDS)
        hook.remove()
    return seen[0]


def test_on_differs_first_and_off_is_the_base_bit_for_bit(model, tiny_model, architecture):
    assert (logits(model, "late") - logits(model, "base")).abs().max() > 1e-3
    with torch.no_grad():
        bare = tiny_model(architecture)(input_ids=IDS).logits
    assert torch.equal(logits(model, "base"), bare)


def test_delta_of_one_adapted_map_is_scale_b_a_x(model, architecture):
    x, base = seen_by_the_adapted_map(model, architecture, "base")
    same_x, adapted = seen_by_the_adapted_map(model, architecture, "late")
    assert torch.equal(x, same_x)
    factors = load_file(f"{model.info('late').path}/adapter_model.safetensors")
    (a,) = [tensor for key, tensor in factors.items() if "lora_A" in key]
    (b,) = [tensor for key, tensor in factors.items() if "lora_B" in key]
    expected = ALPHA / RANK * x @ a.T @ b.T
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(adapted - base, expected, atol=1e-4, rtol=1e-4)
    rank = torch.linalg.matrix_rank((adapted - base).flatten(0, 1), rtol=1e-3)
    assert rank == RANK


@torch.no_grad()
def streams(model, variant, ids):
    with model.variant(variant) as module:
        return run_until(module, SITES, ids)


def stream_deltas(model, ids):
    """Delta of every token by site, each [tokens, 32]."""
    base, adapted = streams(model, "base", ids), streams(model, "late", ids)
    return {s.name: delta(h, base[s]).flatten(0, 1) for s, h in adapted.items()}


@torch.no_grad()
def test_base_plus_delta_is_the_adapted_stream_of_peft_itself(model, tiny_model, architecture):
    path = model.info("late").path
    alone = PeftModel.from_pretrained(tiny_model(architecture), path).eval()
    hidden = alone(input_ids=IDS, output_hidden_states=True).hidden_states[BLOCK + 1]
    base = streams(model, "base", IDS)[SITES[BLOCK]].flatten(0, 1)
    found = base + stream_deltas(model, IDS)[f"layers.{BLOCK}"]
    torch.testing.assert_close(found, hidden.flatten(0, 1), atol=1e-4, rtol=1e-4)


def test_delta_before_the_first_adapted_block_is_zero(model):
    found = stream_deltas(model, IDS)
    assert found["layers.0"].abs().max() == 0.0
    assert found["layers.1"].norm(dim=1).mean() > 1e-3
    assert found["layers.2"].norm(dim=1).mean() > 1e-3


def test_delta_of_the_stream_has_a_rank_beyond_the_adapter_s(model):
    # Behind attention, the MLP and a further block, B·A·x of rank 4 has become something else.
    ids = (torch.arange(240).reshape(12, 20) ** 2) % 61
    found = stream_deltas(model, ids)["layers.2"]
    assert torch.linalg.matrix_rank(found, rtol=1e-3) > 2 * RANK

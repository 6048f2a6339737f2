"""One model, several variants: each variant is what it should be, and the base stays the base."""

import json

import pytest
import torch
from peft import PeftModel

from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.freezing import fingerprint
from lorascope.models.sanity_checks import base_logits, verify_base_unchanged, verify_live

ARCHITECTURES = ("llama", "gemma2", "gpt2", "gpt_neox", "qwen2", "qwen3")
IDS = torch.arange(24).reshape(2, 12) + 3
ATTENTION = {"gpt2": ["c_attn", "c_fc"], "gpt_neox": ["query_key_value", "dense"]}


def targets(architecture):
    return ATTENTION.get(architecture, ["q_proj", "down_proj"])


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=IDS).logits


@torch.no_grad()
def peft_logits(tiny_model, architecture, folder):
    """What PEFT itself computes with this adapter alone on a fresh model."""
    return PeftModel.from_pretrained(tiny_model(architecture), folder).eval()(input_ids=IDS).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_faces_differ_and_the_base_is_the_bare_model(
    tiny_model, tiny_checkpoint, save_adapter, tmp_path, architecture
):
    folder = save_adapter(tmp_path / "a", architecture, target_modules=targets(architecture))
    model = load(str(tiny_checkpoint(architecture)), {"a": str(folder)}, device="cpu")
    with torch.no_grad():
        bare = tiny_model(architecture)(input_ids=IDS).logits
    adapted = logits(model, "a")
    assert (adapted - bare).abs().max() > 1e-2
    assert torch.equal(logits(model, "base"), bare)
    assert torch.equal(model.module(input_ids=IDS).logits, bare)
    assert torch.allclose(adapted, peft_logits(tiny_model, architecture, folder), atol=1e-5)


def test_faces_nest_and_come_back_after_errors(tiny_checkpoint, save_adapter, tmp_path):
    paths = {
        name: str(save_adapter(tmp_path / name, seed=seed, r=r, target_modules=modules))
        for seed, (name, r, modules) in enumerate(
            [("r2", 2, ["q_proj"]), ("r8.v1", 8, ["q_proj", "up_proj"]), ("out", 4, ["o_proj"])]
        )
    }
    model = load(str(tiny_checkpoint("llama")), paths, device="cpu")
    assert model.variants == ("base", "r2", "r8.v1", "out")
    alone = {variant: logits(model, variant) for variant in model.variants}
    pairs = [(a, b) for a in alone for b in alone if a < b]
    assert all((alone[a] - alone[b]).abs().max() > 1e-2 for a, b in pairs)
    with model.variant("r2"):
        with model.variant("out"):
            with model.variant("base") as module:
                assert torch.equal(module(input_ids=IDS).logits, alone["base"])
            assert model.current == "out"
            assert torch.equal(model.module(input_ids=IDS).logits, alone["out"])
        with pytest.raises(ZeroDivisionError), model.variant("r8.v1"):
            raise ZeroDivisionError
        assert torch.equal(model.module(input_ids=IDS).logits, alone["r2"])
    assert torch.equal(model.module(input_ids=IDS).logits, alone["base"])
    with (
        pytest.raises(InputError, match=r'no adapter named "r3".*Did you mean "r2"'),
        model.variant("r3"),
    ):
        pass


VARIANTS = {
    "rslora": {"use_rslora": True, "target_modules": ["q_proj", "up_proj"]},
    "dora": {"use_dora": True, "target_modules": ["q_proj", "up_proj"]},
    "patterns": {
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"q_proj": 40},
    },
    "whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "norms": {"target_modules": ["v_proj"], "modules_to_save": ["input_layernorm"]},
    "mlp": {"target_modules": ["k_proj"], "modules_to_save": ["mlp"]},
    "embedding": {"target_modules": ["embed_tokens", "o_proj"]},
    "tokens": {"target_modules": ["o_proj"], "trainable_token_indices": [4, 9]},
    "all": {"target_modules": "all-linear"},
}


@pytest.mark.parametrize(
    "names",
    [("rslora", "dora", "patterns", "whole", "norms", "all"), ("embedding", "mlp"), ("tokens",)],
)
def test_every_variant_switches_beside_the_others(
    tiny_model, tiny_checkpoint, save_adapter, tmp_path, names
):
    paths = {
        name: str(save_adapter(tmp_path / name, seed=seed, **VARIANTS[name]))
        for seed, name in enumerate(names)
    }
    model = load(str(tiny_checkpoint("llama")), paths, device="cpu")
    bare = tiny_model("llama")(input_ids=IDS).logits
    for _round in range(2):
        for name, path in paths.items():
            expected = peft_logits(tiny_model, "llama", path)
            assert (expected - bare).abs().max() > 1e-2
            assert torch.allclose(logits(model, name), expected, atol=1e-4), name
            assert torch.equal(logits(model, "base"), bare), name


def test_faces_hold_in_bfloat16(tiny_checkpoint, save_adapter, tmp_path):
    paths = {n: save_adapter(tmp_path / n, **VARIANTS[n]) for n in ("rslora", "dora", "whole")}
    model = load(str(tiny_checkpoint("llama")), paths, dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16
    for name in paths:
        assert (logits(model, name) - logits(model, "base")).abs().max() > 1e-2
    lora = [p for n, p in model.module.named_parameters() if "lora_" in n]
    assert {p.dtype for p in lora} == {torch.float32}


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_switch_with_their_adapter(
    tiny_model, tiny_checkpoint, save_adapter, tmp_path, bias
):
    paths = {
        str(seed): str(
            save_adapter(tmp_path / str(seed), "gpt2", seed, bias=bias, target_modules=["c_attn"])
        )
        for seed in (1, 2)
    }
    model = load(str(tiny_checkpoint("gpt2")), paths, device="cpu")
    before = fingerprint(model.module)
    bare = tiny_model("gpt2")(input_ids=IDS).logits
    for name in ("1", "2", "1"):
        assert torch.allclose(
            logits(model, name), peft_logits(tiny_model, "gpt2", paths[name]), atol=1e-4
        )
        assert torch.equal(logits(model, "base"), bare)
    with model.variant("1"), model.variant("2"), model.variant("base") as module:
        assert torch.equal(module(input_ids=IDS).logits, bare)
    assert fingerprint(model.module) == before


def test_what_a_model_says_of_itself(tiny_checkpoint, save_adapter, tmp_path):
    folder = save_adapter(
        tmp_path / "a",
        use_rslora=True,
        target_modules=["v_proj", "q_proj"],
        modules_to_save=["lm_head"],
    )
    model = load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")
    assert (model.d_model, model.n_blocks, model.vocab_size, model.context_length) == (
        32,
        3,
        64,
        64,
    )
    assert model.id == str(tiny_checkpoint("llama"))
    assert model.dtype == torch.float32
    assert model.tokenizer("w0 w1")["input_ids"] == [3, 4]
    info = model.info("a")
    assert (info.rank, info.alpha, info.rslora, info.dora) == (4, 12.0, True, False)
    assert info.target_modules == ("q_proj", "v_proj")
    assert info.modules_to_save == ("lm_head",)
    # q: 4·32 + 32·4, v: 4·32 + 16·4, in each of 3 blocks; and the head
    assert info.n_parameters == 3 * (256 + 192) + 64 * 32
    assert len(info.sha256) == 64
    with pytest.raises(InputError, match='no adapter named "b"'):
        model.info("b")


def test_nothing_trains_and_flags_survive_switching(tiny_checkpoint, save_adapter, tmp_path):
    paths = {n: str(save_adapter(tmp_path / n, target_modules=["q_proj"])) for n in ("a", "b")}
    state = torch.get_rng_state()
    model = load(str(tiny_checkpoint("llama")), paths, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    with model.variant("a") as module:
        assert not any(p.requires_grad for p in module.parameters())
        assert not any(m.training for m in module.modules())
    wanted = [p for n, p in model.module.named_parameters() if model.peft_name("b") in n]
    for parameter in wanted:
        parameter.requires_grad_(True)
    with model.variant("a"), model.variant("b") as module:
        assert {id(p) for p in module.parameters() if p.requires_grad} == {id(p) for p in wanted}
    assert all(p.requires_grad for p in wanted)


def test_full_fine_tune_is_a_variant(tiny_model, tiny_checkpoint, save_adapter, tmp_path):
    tuned = tiny_model("llama")
    for parameter in tuned.parameters():
        parameter.data *= 1.05
    base_folder = tiny_checkpoint("llama")
    tuned.save_pretrained(tmp_path / "tuned")
    for file in base_folder.glob("tokenizer*"):
        (tmp_path / "tuned" / file.name).write_bytes(file.read_bytes())
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj"])
    model = load(str(base_folder), {"ft": str(tmp_path / "tuned"), "a": str(folder)}, device="cpu")
    bare = logits(model, "base")
    assert torch.equal(logits(model, "ft"), tuned(input_ids=IDS).logits)
    assert (logits(model, "ft") - bare).abs().max() > 1e-2
    with model.variant("a"):
        with model.variant("ft"), model.variant("base") as module:
            assert torch.equal(module(input_ids=IDS).logits, bare)
        assert (model.module(input_ids=IDS).logits - bare).abs().max() > 1e-2
    assert model.info("ft").rank is None
    assert len(model.info("ft").sha256) == 64
    with pytest.raises(InputError, match="full fine-tune and has no LoRA weights"):
        model.peft_name("ft")
    with pytest.raises(InputError, match="has architecture gpt2, the base model llama"):
        load(str(base_folder), {"ft": str(tiny_checkpoint("gpt2"))}, device="cpu")


def test_live_report_is_the_difference(tiny_model, tiny_checkpoint, save_adapter, tmp_path):
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj"])
    model = load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")
    mask = torch.ones_like(IDS)
    mask[1, 5:] = 0
    report = verify_live(model, "a", IDS, mask)
    streams = {}
    for variant, module in {
        "base": tiny_model(),
        "a": PeftModel.from_pretrained(tiny_model(), folder),
    }.items():
        kept = []
        (
            module if variant == "base" else module.base_model.model
        ).model.norm.register_forward_pre_hook(lambda _, inputs, kept=kept: kept.append(inputs[0]))
        streams[variant] = (module.eval()(input_ids=IDS, attention_mask=mask).logits, kept[0])
    keep = mask.bool()
    expected = [(a - b)[keep] for a, b in zip(streams["a"], streams["base"], strict=True)]
    assert report.max_logit_difference == pytest.approx(expected[0].abs().max().item(), rel=1e-3)
    assert report.delta_norm == pytest.approx(expected[1].norm(dim=-1).mean().item(), rel=1e-3)
    for parameter in model.module.parameters():
        if parameter.shape[0] == 4 or parameter.shape[-1] == 4:
            parameter.data.zero_()
    with pytest.raises(InputError, match='"a" is not live: on 17 tokens'):
        verify_live(model, "a", IDS, mask)


def test_a_changed_base_is_noticed(tiny_checkpoint, save_adapter, tmp_path):
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj"])
    model = load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")
    before = base_logits(model)
    verify_base_unchanged(model, before)
    model.module.lm_head.weight.data[5, 5] += 1e-3
    with pytest.raises(RuntimeError, match=r"no longer computes.*modules_to_save"):
        verify_base_unchanged(model, before)


def test_nan_weights_name_the_layer(tiny_model, tiny_checkpoint, tmp_path):
    model = tiny_model("llama")
    model.model.layers[1].self_attn.o_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "m")
    for file in tiny_checkpoint("llama").glob("tokenizer*"):
        (tmp_path / "m" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"layers\.1 gives NaN or infinity"):
        load(str(tmp_path / "m"), device="cpu")


def test_embedded_model_takes_an_adapter(embedded_model_path, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = load("embedded", device="cpu")
    assert (model.variants, model.d_model, model.n_blocks) == (("base",), 192, 8)
    assert model.module.config._attn_implementation == "eager"
    wrapped = get_peft_model(
        model.module, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    wrapped.save_pretrained(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    for base_id in ("embedded", str(embedded_model_path), None):
        config["base_model_name_or_path"] = base_id
        (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
        adapted = load("embedded", {"a": str(tmp_path / "a")}, device="cpu")
        assert adapted.info("a").base == base_id

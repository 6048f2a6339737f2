"""PEFT's tuner types beside LoRA: what becomes a variant, and what is refused with which reason."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.ia3 import IA3Model
from safetensors.torch import load_file, save_file

import write_peft_table as script
from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.other_changes import other_changes
from lorascope.models.tuner_kinds import known_kinds, refusal
from lorascope.models.updates import lora_updates, updated_modules, weight_update

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "formats.md"
IDS = torch.arange(24).reshape(2, 12) + 3
WEIGHTS = "adapter_model.safetensors"
# One of each kind of answer; all of them in the slow test.
FEW = (
    *("IA3", "HRA", "SHIRA", "BEFT", "LILY", "LN_TUNING", "TRAINABLE_TOKENS"),
    *("ADAMSS", "POLY", "PREFIX_TUNING"),
)


@pytest.fixture
def saved(base, tmp_path):
    """`saved(kind, **fields)`: the folder of an adapter of a type."""

    def save(kind, **fields):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return script.save_adapter(kind, base, tmp_path / kind, **fields)

    return save


def opened(base, **adapters):
    return load(str(base), adapters, device="cpu", force=True)


def refused(base, folder):
    with pytest.raises(InputError) as caught:
        opened(base, a=folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith('adapter "a"')
    return message


def edit(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def logits(model, name):
    with torch.no_grad(), model.variant(name) as module:
        return module(input_ids=IDS).logits


@pytest.mark.parametrize("kind", FEW)
def test_what_the_table_says_is_seen(base, tmp_path, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = script.row(kind, base, tmp_path / kind)
    assert found in PAGE.read_text(encoding="utf-8").splitlines()
    assert "NO |" not in found
    assert "WRONG" not in found


@pytest.mark.slow
def test_the_table_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert text == script.page(text), "run python scripts/write_peft_table.py"
    table = text.partition(script.BEGIN)[2].partition(script.END)[0]
    assert table.count("| yes | yes | yes |") == 35
    assert "| NO |" not in table
    assert "WRONG" not in table


def test_the_table_has_every_type_of_peft():
    table = PAGE.read_text(encoding="utf-8").partition(script.BEGIN)[2].partition(script.END)[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert set(rows[2:]) == {"LORA", *known_kinds()}
    assert refusal("IA3") is None
    assert refusal("CPT")


@torch.no_grad()
def test_several_types_and_lora_side_by_side(base, saved, tmp_path):
    torch.manual_seed(1)
    lora = get_peft_model(
        script.bare_model(base),
        LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False),
    )
    lora.save_pretrained(tmp_path / "lora")
    folders = {"first": saved("OFT"), "between": tmp_path / "lora", "last": saved("IA3")}
    model = opened(base, **folders)
    assert model.adapters == ("first", "between", "last")
    plain = script.bare_model(base)(IDS).logits
    for name, folder in folders.items():
        alone = PeftModel.from_pretrained(script.bare_model(base), folder).eval()(IDS).logits
        assert torch.equal(logits(model, name), alone)
        assert not torch.equal(alone, plain)
    assert torch.equal(logits(model, "base"), plain)
    assert [model.info(name).kind for name in folders] == ["OFT", "LORA", "IA3"]
    # The base's weights are in memory once.
    with model.variant("last") as copied:
        theirs = copied.get_submodule("model.layers.0.mlp.up_proj").weight
    assert theirs.data_ptr() == model.module.model.layers[0].mlp.up_proj.weight.data_ptr()
    with pytest.raises(InputError, match="IA3 and has no LoRA weights"):
        lora_updates(model, "last")


def test_ia3_by_hand(base, saved):
    """IA³ multiplies what `q_proj` gives, and what `down_proj` is given."""
    folder = saved("IA3")
    model = opened(base, a=folder)
    stored = load_file(folder / WEIGHTS)
    for path, axis in (("model.layers.1.self_attn.q_proj", 0), ("model.layers.0.mlp.down_proj", 1)):
        factor = stored[f"base_model.model.{path}.ia3_l"].flatten()
        W = model.base_parameters[f"{path}.weight"]
        shape = (-1, 1) if axis == 0 else (1, -1)
        expected = W * (factor - 1).reshape(shape)
        assert torch.allclose(weight_update(model, "a", path).dense(), expected, atol=1e-6)


def test_what_is_no_map_beside_maps(base, saved):
    folder = saved("IA3", modules_to_save=["norm", "lm_head"], target_modules=["q_proj"],
                   feedforward_modules=[])  # fmt: skip
    model = opened(base, a=folder)
    assert "lm_head" in updated_modules(model, "a")
    assert set(other_changes(model, "a")) == {
        "model.norm",
        *(f"model.layers.{i}.{n}_layernorm" for i in (0, 1) for n in ("input", "post_attention")),
    }


def test_tensors_are_exactly_those_peft_expects(base, saved):
    folder = saved("LOHA")
    stored = load_file(folder / WEIGHTS)
    first = sorted(stored)[0]
    for change, match in (
        ({first: None}, "lacks 1 tensors"),
        ({"base_model.model.extra": torch.ones(3)}, "no place"),
        ({first: torch.ones(3, 5)}, "has shape"),
        ({first: torch.full_like(stored[first], torch.nan)}, "NaN"),
    ):
        changed = {k: v for k, v in {**stored, **change}.items() if v is not None}
        save_file(changed, folder / WEIGHTS)
        assert match in refused(base, folder)


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("IA3", {"target_modules": 3}, "target_modules is 3"),
        ("IA3", {"feedforward_modules": {"a": 1}}, "feedforward_modules is"),
        ("OFT", {"r": "8"}, "r is"),
        ("OFT", {"coft": "false"}, "coft is"),
        ("OFT", {"eps": float("nan")}, "eps is NaN"),
        ("HRA", {"r": 10**30}, "r is 1000"),
        ("HRA", {"bias": "all"}, "biases of a HRA adapter"),
        ("HRA", {"target_modules": ["nowhere"]}, "nowhere"),
        ("LOHA", {"rank_pattern": [1]}, "rank_pattern is"),
        ("ADALORA", {"init_lora_weights": "pissa"}, "changes the base weights"),
        ("ADALORA", {"layer_replication": [[0, 2]]}, "repeats blocks"),
    ],
)
def test_configurations_of_the_wrong_kind(base, saved, kind, changes, match):
    assert match in refused(base, edit(saved(kind), **changes))


def test_what_is_not_the_same_twice(base, saved):
    folder = edit(saved("PVERA"), sample_at_inference=True)
    assert "something else each time" in refused(base, folder)


def test_what_leaves_a_trace(base, saved, monkeypatch):
    folder = saved("IA3")
    monkeypatch.setattr(IA3Model, "disable_adapter_layers", lambda self: None)
    assert "bit for bit" in refused(base, folder)


def test_what_changes_nothing(base, saved):
    folder = saved("IA3")
    ones = {key: torch.ones_like(value) for key, value in load_file(folder / WEIGHTS).items()}
    save_file(ones, folder / WEIGHTS)
    assert "not live" in refused(base, folder)

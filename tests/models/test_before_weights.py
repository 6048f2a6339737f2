"""What is wrong with an adapter's files is said before a weight of the base is loaded."""

import json
import shutil

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from lorascope.errors import InputError
from lorascope.models import adapted, adapter_files
from lorascope.models import load as loading
from lorascope.models.adapted import load
from lorascope.models.adapter_files import is_at_hand, locate
from lorascope.models.load import load_base

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
IDS = torch.arange(24).reshape(2, 12) + 3


@pytest.fixture(scope="module")
def good(save_adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "good"
    return save_adapter(folder, target_modules=["q_proj", "down_proj"])


@pytest.fixture
def adapter(good, tmp_path):
    """A copy of a good adapter, to be spoiled."""
    return shutil.copytree(good, tmp_path / "adapter")


@pytest.fixture
def refused(tiny_checkpoint, monkeypatch):
    """`refused(path, match)`: in one line, and without loading the base."""

    def check(path, match):
        with monkeypatch.context() as context:
            context.setattr(adapted, "load_base", None)
            with pytest.raises(InputError, match=match) as caught:
                load(str(tiny_checkpoint("llama")), {"a": str(path)}, device="cpu")
        assert "\n" not in str(caught.value)

    return check


def edit_config(folder, **changes):
    file = folder / CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_weights(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=IDS).logits


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, -1])
def test_values_that_are_not_finite_wherever_they_lie(adapter, refused, value, place):
    keys = sorted(load_file(adapter / WEIGHTS))

    def spoil(weights):
        weights[keys[place]][1, 1] = value

    edit_weights(adapter, spoil)
    refused(adapter, rf'adapter "a": 1 of the 12 tensors .* NaN or infinity .*{keys[place]}')


def test_values_of_eight_bits_are_looked_at_too(adapter, refused):
    def spoil(weights):
        for key in weights:
            weights[key] = weights[key].to(torch.float8_e5m2)
        weights[key] = torch.full_like(weights[key].float(), float("inf")).to(torch.float8_e5m2)

    edit_weights(adapter, spoil)
    refused(adapter, "1 of the 12 tensors .* NaN or infinity")


def test_tensors_saved_without_their_values(adapter, refused):
    edit_weights(adapter, lambda w: w.update({key: torch.zeros(0) for key in w}))
    refused(adapter, "12 of the 12 tensors .* are empty .*ZeRO-3.*zero_to_fp32")


def test_tensors_that_are_no_weights(adapter, refused):
    edit_weights(adapter, lambda w: w.update({key: t.to(torch.int32) for key, t in w.items()}))
    refused(adapter, "of dtype torch.int32.*save it in float32")


@pytest.mark.parametrize("spread", ["expanded", "sparse"])
def test_tensors_with_fewer_values_than_they_say(adapter, refused, spread):
    weights = load_file(adapter / WEIGHTS)
    key = sorted(weights)[0]
    one = torch.ones(1, 1).expand(weights[key].shape)
    whole = dict(weights)
    weights[key] = one if spread == "expanded" else one.to_sparse()
    (adapter / WEIGHTS).unlink()
    torch.save(weights, adapter / "adapter_model.bin")
    refused(adapter, f"{key}.*sparse or repeats stored values.*to_dense")
    # What it says helps.
    torch.save({**whole, key: weights[key].to_dense().contiguous()}, adapter / "adapter_model.bin")
    assert adapter_files.read("a", str(adapter), adapter).info.rank == 4


def test_a_pointer_in_place_of_weights(adapter, refused):
    (adapter / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    refused(adapter, "pointer of git-lfs.*git lfs pull")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"lora_alpha": 0}, r"changes nothing.*lora_alpha 0"),
        ({"alpha_pattern": {".*_proj": 0}}, "changes nothing"),
        ({"r": 8}, "for another base: .*down_proj"),
        ({"target_modules": ["o_proj"]}, "have no place in this model"),
        ({"target_modules": r".*\.nothing"}, "does not fit LlamaForCausalLM"),
        ({"base_model_name_or_path": "org/other-7b"}, "--force"),
        ({"use_bdlora": {"nblocks": "two"}}, "does not fit|cannot read"),
        ({"eva_config": {"rho": "x"}}, "cannot read|does not fit"),
        ({"trainable_token_indices": [64]}, "trains token 64 and the model has 64 tokens"),
    ],
)
def test_configurations_that_do_not_fit(adapter, refused, changes, match):
    edit_config(adapter, **changes)
    refused(adapter, match)


def test_factors_that_never_meet_change_nothing(adapter, refused):
    def apart(weights):
        for key, tensor in weights.items():
            # B writes from the first rank, A reads into the second.
            tensor[:, 1:] = 0 if "lora_B" in key else tensor[:, 1:]
            if "lora_A" in key:
                tensor[0] = 0

    edit_weights(adapter, apart)
    refused(adapter, "changes nothing")


def test_a_rank_is_not_allocated_before_it_is_found_not_to_fit(adapter, refused):
    edit_config(adapter, r=2_000_000_000)
    refused(adapter, r"for another base: .* this model needs \(2000000000, 48\)")


def test_a_fine_tune_of_another_model(tiny_checkpoint, refused):
    refused(tiny_checkpoint("gpt2"), "has architecture gpt2, the base model llama")


# Where things lie.


def test_one_folder_below_is_taken(good, tiny_checkpoint, tmp_path):
    shutil.copytree(good, tmp_path / "run" / "checkpoint-100")
    (tmp_path / "run" / "logs").mkdir()
    assert locate("a", str(tmp_path / "run")) == tmp_path / "run" / "checkpoint-100"
    base = str(tiny_checkpoint("llama"))
    direct, found = (
        load(base, {"a": str(path)}, device="cpu") for path in (good, tmp_path / "run")
    )
    assert torch.equal(logits(direct, "a"), logits(found, "a"))


def test_several_folders_below_are_named_and_one_of_them_can_be_given(good, refused, tmp_path):
    for step in (20, 100, 80):
        shutil.copytree(good, tmp_path / "run" / f"checkpoint-{step}" / "tuned")
    refused(tmp_path / "run", "holds 3 adapters further down .*20/tuned.*80/tuned.*100/tuned")
    assert locate("a", str(tmp_path / "run" / "checkpoint-80" / "tuned")).is_dir()


def test_folders_below_in_a_repository(good, monkeypatch, tmp_path):
    asked = []

    def download(repository, allow_patterns):
        asked.append((repository, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(adapter_files, "snapshot_download", download)
    shutil.copytree(good, tmp_path / "checkpoint-9")
    assert locate("a", "org/repo") == tmp_path / "checkpoint-9"
    assert asked[-1][0] == "org/repo"
    assert f"checkpoint-9/{WEIGHTS}" in asked[-1][1]
    shutil.copytree(good, tmp_path / "checkpoint-10")
    with pytest.raises(InputError, match="org/repo/checkpoint-9, org/repo/checkpoint-10"):
        locate("a", "org/repo")


@pytest.fixture
def both(tiny_checkpoint, good, tmp_path):
    """A model's folder that an adapter was saved into."""
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "both")
    for file in (CONFIG, WEIGHTS):
        shutil.copy(good / file, folder / file)
    edit_config(folder, base_model_name_or_path=str(tiny_checkpoint("llama")))
    return folder


def test_a_model_is_its_own_weights_whatever_lies_beside_them(both, tiny_checkpoint, good):
    plain, _ = load_base(str(tiny_checkpoint("llama")), device="cpu")
    beside, _ = load_base(str(both), device="cpu")
    expected = plain(input_ids=IDS).logits
    assert torch.equal(beside(input_ids=IDS).logits, expected)
    # Given as the adapter of the model it lies beside it is one.
    edit_config(both, base_model_name_or_path=None)
    model = load(str(both), {"a": str(both)}, device="cpu")
    other = load(str(tiny_checkpoint("llama")), {"a": str(good)}, device="cpu")
    assert torch.equal(logits(model, "base"), expected)
    assert torch.equal(logits(model, "a"), logits(other, "a"))


def test_a_fine_tune_beside_an_adapter_is_one_or_the_other(both, refused, tiny_checkpoint):
    refused(both, "holds the weights of a whole model and an adapter")
    # What it says helps: the adapter's files moved away, the fine-tune is what is left.
    weights = load_file(both / "model.safetensors")
    tuned = {key: tensor * 1.05 for key, tensor in weights.items()}
    save_file(tuned, both / "model.safetensors", metadata={"format": "pt"})
    for file in (CONFIG, WEIGHTS):
        (both / file).unlink()
    model = load(str(tiny_checkpoint("llama")), {"a": str(both)}, device="cpu")
    assert model.info("a").rank is None


def test_an_adapter_s_folder_is_no_model(good):
    with pytest.raises(InputError, match="it holds an adapter; give its base model"):
        load_base(str(good), device="cpu")


def test_a_copy_of_the_base_is_no_fine_tune(tiny_checkpoint, tmp_path):
    copy = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "copy")
    with pytest.raises(InputError, match="are the base model's"):
        load(str(tiny_checkpoint("llama")), {"a": str(copy)}, device="cpu")


# Advice that can be followed.


def test_advice_about_the_hub_knows_whether_it_is_switched_off(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "check" not in loading.how_to_reach("model")
    assert "HF_HUB_OFFLINE=1" in loading.how_to_reach("model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "network" in loading.how_to_reach("model")
    assert not is_at_hand("no-org/no-adapter")
    assert is_at_hand("./no-such-folder")


def test_weights_whose_package_is_missing(tiny_checkpoint, monkeypatch, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(InputError, match="package bitsandbytes is not installed") as caught:
        load_base(str(folder), device="cpu")
    assert "network" not in str(caught.value)


def test_the_recipe_for_adapters_of_mlx_gives_the_same_model(
    tiny_model, tiny_checkpoint, refused, tmp_path
):
    rank, scale, module = 3, 20.0, "model.layers.1.self_attn.q_proj"
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=random) * 0.1 for shape in ((32, rank), (rank, 32)))
    mlx = tmp_path / "mlx"
    mlx.mkdir()
    parameters = {"rank": rank, "scale": scale, "dropout": 0.0}
    (mlx / CONFIG).write_text(json.dumps({"lora_parameters": parameters, "num_layers": 2}))
    save_file({f"{module}.lora_a": a, f"{module}.lora_b": b}, mlx / "adapters.safetensors")
    refused(mlx, "written by MLX.*lora_aᵀ.*scale × rank")
    peft = tmp_path / "peft"
    peft.mkdir()
    key = f"base_model.model.{module}"
    save_file(
        {
            f"{key}.lora_A.weight": a.T.contiguous(),
            f"{key}.lora_B.weight": b.T.contiguous(),
        },
        peft / WEIGHTS,
    )
    fields = {"peft_type": "LORA", "r": rank, "lora_alpha": scale * rank}
    (peft / CONFIG).write_text(json.dumps({**fields, "target_modules": [module]}))
    model = load(str(tiny_checkpoint("llama")), {"a": str(peft)}, device="cpu")
    bare = tiny_model("llama")
    # MLX computes x Wᵀ + scale · (x a) b.
    bare.get_submodule(module).weight.data += scale * (a @ b).T
    with torch.no_grad():
        expected = bare(input_ids=IDS).logits
    assert torch.allclose(logits(model, "a"), expected, atol=1e-4)

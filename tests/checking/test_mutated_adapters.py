"""Adapter folders changed at random: looked at and put on a model, or refused in one line."""

import random
import shutil

import pytest
import torch
from mutations import other_bytes, other_values, seconds
from safetensors.torch import load_file, save_file

from lorascope.checking.reading import read_adapter
from lorascope.errors import InputError
from lorascope.latent_adapters.loading import check

KINDS = {
    "plain": {"target_modules": ["q_proj", "down_proj"]},
    "pattern": {"target_modules": r".*\.(q|k)_proj", "rank_pattern": {"layers.1": 2}},
    "dora": {"target_modules": ["o_proj"], "use_dora": True, "use_rslora": True},
    "saved": {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"], "bias": "lora_only"},
}


@pytest.fixture(scope="module")
def whole(save_adapter, save_latent_adapter, tmp_path_factory):
    """{kind: folder} of adapters that are right."""
    root = tmp_path_factory.mktemp("whole")
    found = {name: save_adapter(root / name, **fields) for name, fields in KINDS.items()}
    return {**found, "latent": save_latent_adapter(root / "latent")}


def other_tensors(chance, path):
    tensors = load_file(path)
    name = chance.choice(sorted(tensors))
    tensor = tensors[name]
    match chance.randrange(6):
        case 0:
            tensors[chance.choice(sorted(tensors))] = tensor.clone()
        case 1:
            tensors[name] = tensor.to(chance.choice([torch.int64, torch.float64, torch.bfloat16]))
        case 2:
            tensors[name] = tensor.reshape(-1)
        case 3:
            tensors[name] = torch.cat([tensor, tensor])
        case 4:
            number = chance.choice([float("nan"), 3e38, -3e38, 0.0])
            tensors[name] = torch.full(tensor.shape, number)
        case 5:
            tensors[chance.choice(["x", name.replace("q_", "z_"), name + ".b"])] = tensors.pop(name)
    save_file(tensors, path)


def change(chance, folder):
    how = chance.random()
    configs = sorted(folder.rglob("*.json"))
    weights = sorted(folder.rglob("*.safetensors"))
    if how < 0.45:
        other_values(chance, chance.choice(configs))
    elif how < 0.7:
        other_tensors(chance, chance.choice(weights))
    elif how < 0.95:
        other_bytes(chance, chance.choice([*configs, *weights]))
    else:
        gone = chance.choice([*configs, *weights])
        gone.unlink()
        if chance.random() < 0.5:
            gone.mkdir()


def taken(read, number):
    """Whether a folder is taken; what refuses it is one line."""
    try:
        with seconds(30):
            read()
    except InputError as refused:
        text = str(refused)
        assert "\n" not in text, (number, text)
        assert len(text) < 1500, (number, text)
        return False
    except OSError:
        # The command line makes it one line.
        return False
    return True


def many(whole, model, root, numbers):
    looked_at = put_on = 0
    for number in numbers:
        chance = random.Random(number)
        folder = root / str(number)
        shutil.copytree(whole[chance.choice(sorted(whole))], folder)
        change(chance, folder)
        looked_at += taken(lambda: read_adapter(str(folder)), number)  # noqa: B023
        put_on += taken(lambda: check(model, {"a": folder}, force=True), number)  # noqa: B023
        shutil.rmtree(folder)
    # Some changes are harmless, most are not: both happen.
    for count in (looked_at, put_on):
        assert 0.02 * len(numbers) < count < 0.9 * len(numbers)


def test_a_few_hundred(whole, tiny_checkpoint, tmp_path):
    model = str(tiny_checkpoint("llama"))
    for folder in whole.values():
        check(model, {"a": folder}, force=True)
    many(whole, model, tmp_path, range(200))


@pytest.mark.slow
def test_thousands(whole, tiny_checkpoint, tmp_path):
    many(whole, str(tiny_checkpoint("llama")), tmp_path, range(200, 3000))

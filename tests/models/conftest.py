"""What PEFT adds to each module, by its own arithmetic."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

import write_peft_table


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Folder of the small model that adapters of every tuner type are made for."""
    folder = tmp_path_factory.mktemp("tuner") / "base"
    write_peft_table.save_base(folder)
    return folder


@pytest.fixture(scope="session")
def dense():
    """`dense(model, name)`: see `_dense`."""
    return _dense


@torch.no_grad()
def _dense(model, name):
    """{module: what PEFT adds to it, by PEFT's own arithmetic}; DoRA without its magnitude."""
    peft_name = model.peft_name(name)
    found = {}
    for path, module in model.module.named_modules():
        if isinstance(module, LoraLayer) and (
            peft_name in module.lora_A or peft_name in module.lora_embedding_A
        ):
            found[path] = module.get_delta_weight(peft_name)
        if isinstance(module, ModulesToSaveWrapper) and peft_name in module.modules_to_save:
            theirs = module.modules_to_save[peft_name].named_parameters()
            ours = dict(module.original_module.named_parameters())
            found |= {f"{path}.{inner}": value - ours[inner] for inner, value in theirs}
        if isinstance(module, TrainableTokensWrapper):
            layer = module.token_adapter
            rows = module.original_module.weight[layer.token_indices[peft_name]]
            found[path] = layer.trainable_tokens_delta[peft_name] - rows
    return found

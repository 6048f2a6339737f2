"""Which of PEFT's adapters a model shows, without what PEFT does to gradients on the way.

PEFT's own switching visits every parameter of every adapter to set whether it is trained; a run
that changes faces at every token spends more time there than in the model.
"""

from __future__ import annotations

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers import PreTrainedModel

from lorascope.models.freezing import gradients_kept


def show(base: PreTrainedModel, peft: PeftModel, name: str | None) -> None:
    """Show the adapter that PEFT knows by this name, or none; gradients stay as they are.

    Layers that PEFT wraps in other ways than tuner layers (modules saved whole, trained tokens) and
    layers that are merged are switched by PEFT itself, and so is everything beside them.
    """
    modules = list(base.modules())
    layers = [module for module in modules if isinstance(module, BaseTunerLayer)]
    wrapped = any(isinstance(module, AuxiliaryTrainingWrapper) for module in modules)
    if wrapped or any(layer.merged for layer in layers):
        with gradients_kept(base):
            if name is None:
                peft.base_model.disable_adapter_layers()
            else:
                peft.base_model.enable_adapter_layers()
                peft.set_adapter(name)
        return
    for layer in layers:
        layer._disable_adapters = name is None
        if name is not None:
            layer._active_adapter = [name]
    if name is not None:
        peft.active_adapter = name
        peft.base_model.active_adapter = name

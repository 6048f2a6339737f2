"""Show one of PEFT's adapters, or none, on a model that holds many.

PEFT's own way walks the model several times and sets the gradient flags of every adapter on it,
which is what most of a switch takes where null adapters are on the model too. What a LoRA layer
computes depends on two of its attributes alone; they are set, and what the layers then say of
themselves is read back.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from lorascope.models.freezing import gradients_kept

# The layers of a wrapper as long as the names of its adapters are these; None where PEFT's own way
# has to be taken.
_Layers = list[BaseTunerLayer] | None
_KNOWN: WeakKeyDictionary[PeftModel, tuple[tuple[str, ...], _Layers]] = WeakKeyDictionary()


def show(peft: PeftModel, name: str | None) -> None:
    """Let the model compute with the adapter PEFT knows by `name`, or with none.

    Gradient flags stay as they are.
    """
    layers = _layers(peft)
    if layers is None or not _shown(peft, layers, name):
        _by_peft(peft, name)


def _layers(peft: PeftModel) -> _Layers:
    names = tuple(peft.peft_config)
    known = _KNOWN.get(peft)
    if known is None or known[0] != names:
        known = _KNOWN[peft] = (names, _found(peft))
    return known[1]


def _found(peft: PeftModel) -> _Layers:
    """Every layer with adapters; None where one switches in a way of its own."""
    modules = list(peft.get_base_model().modules())
    if any(isinstance(module, AuxiliaryTrainingWrapper) for module in modules):
        return None
    layers = [module for module in modules if isinstance(module, BaseTunerLayer)]
    return layers if all(map(_plain, layers)) else None


def _plain(layer: BaseTunerLayer) -> bool:
    return all(
        getattr(type(layer), method) is getattr(BaseTunerLayer, method)
        for method in ("set_adapter", "enable_adapters")
    )


def _shown(peft: PeftModel, layers: list[BaseTunerLayer], name: str | None) -> bool:
    """Set the attributes; whether every layer says that it computes so now."""
    for layer in layers:
        layer._disable_adapters = name is None
        if name is not None:
            layer._active_adapter = [name]
    if name is not None:
        peft.active_adapter = name
        peft.base_model.active_adapter = name
    return all(
        not layer.merged
        and layer.disable_adapters == (name is None)
        and (name is None or layer.active_adapters == [name])
        for layer in layers
    )


def _by_peft(peft: PeftModel, name: str | None) -> None:
    # PEFT also sets requires_grad when it switches; that is the user's to decide.
    with gradients_kept(peft.get_base_model()):
        if name is None:
            peft.base_model.disable_adapter_layers()
        else:
            peft.base_model.enable_adapter_layers()
            peft.set_adapter(name)

"""The settings of measuring a behaviour; nothing here waits for torch."""

from __future__ import annotations

from pydantic import Field

from lorascope.config import Device, DType, Settings
from lorascope.training.settings import LoraTraining


class MeasureBehaviour(Settings):
    """Settings of `lorascope behaviour measure`.

    Attributes:
        data: a behaviour set's folder or file, or "embedded".
        model: hub id, folder, "embedded" or "embedded-it".
        adapters: {name: folder or hub id} of adapters to measure.
        dense: ranks of dense LoRA adapters to train on the set as a baseline.
        training: of these; their ranks are `dense`.
        prompt: measure prompting, with the manner's instruction after every prompt.
        instruction: what to ask for instead of the manner's own.
        manner: judged by; by default what the set was made with.
        judge: regular expression for a manner in words.
        context: longest prompt and response in tokens.
        new_tokens: most tokens of an answer.
        batch: prompts answered at once.
        force: accept adapters whose files name another base model.
    """

    data: str = "embedded"
    model: str = "embedded-it"
    revision: str | None = None
    device: Device = "auto"
    dtype: DType = "auto"
    adapters: dict[str, str] = Field(default_factory=dict)
    dense: tuple[int, ...] = ()
    training: LoraTraining = LoraTraining(steps=120, batch=16)
    prompt: bool = True
    instruction: str = ""
    manner: str = ""
    judge: str = ""
    context: int = Field(default=512, ge=16)
    new_tokens: int = Field(default=24, ge=1)
    batch: int = Field(default=64, ge=1)
    force: bool = False

"""Settings of the commands that are no study of their own; nothing here waits for torch."""

from __future__ import annotations

from pydantic import Field

from lorascope.activations.settings import Capture, Template
from lorascope.config import Device, DType, Settings
from lorascope.training.settings import LoraTraining


class TrainStudy(Settings):
    """Settings of `lorascope train-adapter`.

    Attributes:
        model: hub id, folder, or "embedded".
        records: where instruction records come from.
        documents: most records to use.
        training: ranks and everything they share.
        seeds: one adapter each per rank; by default one, `training.seed`.
        template: which records go through the tokenizer's chat template where it has one: chats,
            and instructions in Alpaca's words ("auto"); both ("chat"); none ("plain").
    """

    model: str = "embedded"
    revision: str | None = None
    dtype: DType = "auto"
    device: Device = "auto"
    records: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    documents: int | None = Field(default=None, gt=0)
    training: LoraTraining = LoraTraining()
    seeds: tuple[int, ...] = ()
    template: Template = "auto"


class BehavingStudy(Settings):
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


class CompareSettings(Settings):
    """What is compared, and how finely.

    Attributes:
        first, second: RUN, RUN:ADAPTER, or :ADAPTER of the first one's run.
        sites: which of the sites both runs captured; all by default.
        rows: most common tokens to use, shared out among documents.
        false_rate: share of the latents listed as active in one only that may be false.
        repeats: draws of each null of the geometric measures.
        listed: most latents a site and side whose contexts are shown.
        contexts: contexts shown of each.
        texts: documents, and tokens, shown where the deltas differ most.
    """

    first: str
    second: str
    sites: tuple[str, ...] = ()
    rows: int = Field(default=20000, ge=100)
    false_rate: float = Field(default=0.1, gt=0, lt=1)
    repeats: int = Field(default=10, ge=2)
    listed: int = Field(default=24, ge=0)
    contexts: int = Field(default=5, ge=1)
    texts: int = Field(default=20, ge=1)
    seed: int = 0


class OnTexts(Settings):
    """What a dictionary is tried on.

    Attributes:
        model: hub id, folder, or "embedded".
        texts: files, folders, dataset ids, or "embedded".
        site: where it is tried; by default where its file says it reads.
        adapter: folder or hub id; the rows are then h_adapted − h_base.
        rows: most tokens to use.
        force: try it on a model or site it was not made for.
    """

    model: str
    texts: tuple[str, ...] = Field(min_length=1)
    site: str | None = None
    adapter: str | None = None
    rows: int = Field(default=4096, ge=100)
    force: bool = False
    device: Device = "auto"
    capture: Capture = Capture(store="float32")

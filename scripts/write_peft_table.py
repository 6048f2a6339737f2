"""Write the table of PEFT's tuner types in docs/formats.md: `python scripts/write_peft_table.py`.

Every type of the installed PEFT is put on a tiny Llama with random weights, saved, and opened by
`lorascope.models.adapted.load`. What stands in the table is what was seen:

- delta: the stream after the last block, variant minus base, equals that of two models in memory,
  one bare and one made by PEFT from the same files, bit for bit;
- off: after the variant was shown the base's logits are the bare model's, bit for bit (that PEFT's
  own `disable_adapter` restores them is a condition of loading);
- weights: at every map, the update times random inputs equals what PEFT's module gives beyond the
  base's, and the norm of all of them together is that of these modules' matrices (to 1e-4).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from lorascope.errors import InputError
from lorascope.measures.weights import WeightSettings, weights_view
from lorascope.models.adapted import AdaptedModel, load
from lorascope.models.hooks import run_until
from lorascope.models.other_changes import other_changes
from lorascope.models.sites import Site
from lorascope.models.tuner_kinds import refusal
from lorascope.models.updates import updated_modules, weight_update
from lorascope.results.labels import ALL_MODULES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
BEGIN, END = "<!-- tuner types: begin -->", "<!-- tuner types: end -->"
KINDS = tuple(kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING)
# Needs a package that is no dependency; where it is installed, loading decides.
NEEDS_MORE = {"ADAMSS": "scikit-learn"}
TARGETS = ["q_proj", "down_proj"]
# What a type needs beside `target_modules`, for a model of width 32.
SETTINGS: dict[str, dict[str, Any]] = {
    "ADALORA": {"init_r": 4, "target_r": 2, "total_step": 10},
    "ADAPTION_PROMPT": {"adapter_len": 2, "adapter_layers": 2, "target_modules": None},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 20},
    "FROD": {"progressbar": False},
    "GRALORA": {"r": 4, "gralora_k": 2, "alpha": 8},
    "HRA": {"r": 4},
    "IA3": {"feedforward_modules": ["down_proj"]},
    "LILY": {"r": 4, "num_B": 2, "stride_A": 1},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "LOHA": {"r": 2},
    "LOKR": {"r": 2},
    "LORA": {"r": 2},
    "MISS": {"r": 4},
    "OFT": {"r": 0, "oft_block_size": 4},
    "PSOFT": {"r": 4},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "SUPERTUNING": {"r": 2},
    "TINYLORA": {"r": 2, "u": 4},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [3, 9]},
    "UNILORA": {"r": 2, "theta_d_length": 64},
    "VBLORA": {"r": 2, "num_vectors": 8, "vector_length": 8},
    "WAVEFT": {"n_frequency": 20},
}
COLUMNS = ("type", "a variant", "delta = two models", "off = base", "weights view")
HEAD = f"| {' | '.join(COLUMNS)} | left out of it; why not |"


def save_base(folder: Path) -> None:
    """A tiny Llama with random weights, and a tokenizer of as many words."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)


def bare_model(base: Path) -> Any:
    """The tiny Llama as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


def save_adapter(kind: str, base: Path, folder: Path, **changes: Any) -> Path:
    """An adapter of a type with random weights; of one that is refused unseen its config alone."""
    if kind != "LORA" and refusal(kind):
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
        return folder
    config = next(c for k, c in PEFT_TYPE_TO_CONFIG_MAPPING.items() if k.value == kind)
    fields = {"target_modules": TARGETS, "task_type": "CAUSAL_LM"} | SETTINGS.get(kind, {})
    known = {field.name for field in dataclasses.fields(config)}
    settings = {key: value for key, value in (fields | changes).items() if key in known}
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stderr(io.StringIO()):
        torch.manual_seed(7)
        wrapped = get_peft_model(bare_model(base).requires_grad_(False), config(**settings))
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        wrapped.save_pretrained(folder)
    return folder


@torch.no_grad()
def row(kind: str, base: Path, folder: Path) -> str:
    """The table's row of a type, from trying it."""
    if kind in NEEDS_MORE:
        why = f"PEFT needs {NEEDS_MORE[kind]} to build it; where that is installed, loading decides"
        return f"| {kind} | – | – | – | – | {why} |"
    adapter = save_adapter(kind, base, folder)
    try:
        model = load(str(base), {"a": adapter}, force=True)
    except InputError as error:
        why = str(error).partition("not supported: ")[2] or str(error)
        return f"| {kind} | no | – | – | – | {why} |"
    bare = bare_model(base)
    with contextlib.redirect_stderr(io.StringIO()):
        peft = PeftModel.from_pretrained(bare_model(base), adapter).eval()
    ids = torch.arange(24).reshape(2, 12) + 3
    delta = _yes(_same_delta(model, bare, peft.base_model.model, ids))
    off = _yes(torch.equal(model.module(ids).logits, bare(ids).logits))
    maps = updated_modules(model, "a")
    right = _weights_right(model, bare, peft.base_model.model, maps)
    left = sorted(set(other_changes(model, "a").values()))
    view = f"{len(maps)} maps, {'right' if right else 'WRONG'}" if maps else "nothing"
    return f"| {kind} | yes | {delta} | {off} | {view} | {', '.join(left) or '–'} |"


def _yes(found: bool) -> str:
    return "yes" if found else "NO"


def _same_delta(model: AdaptedModel, bare: nn.Module, tuned: nn.Module, ids: Tensor) -> bool:
    last = Site(model.n_blocks - 1)
    streams = []
    for name in ("a", "base"):
        with model.variant(name) as module:
            streams.append(run_until(module, [last], ids)[last])
    theirs = [run_until(module, [last], ids)[last] for module in (tuned, bare)]
    delta = streams[0] - streams[1]
    return bool(delta.any()) and torch.equal(delta, theirs[0] - theirs[1])


def _weights_right(model: AdaptedModel, bare: nn.Module, tuned: nn.Module, maps: list[str]) -> bool:
    """Every update on random inputs, and the norm of the view."""
    norms = []
    for path in maps:
        ours, theirs = bare.get_submodule(path), tuned.get_submodule(path)
        update = weight_update(model, "a", path).dense()
        n_in = update.shape[1]
        tokens = isinstance(ours, nn.Embedding)
        eye = torch.arange(n_in)[None] if tokens else torch.eye(n_in)[None]
        norms.append(float((theirs(eye) - ours(eye)).norm()))
        x = torch.arange(n_in)[None] if tokens else torch.randn(1, 9, n_in)
        found = update.T[x] if tokens else x @ update.T
        seen = theirs(x) - ours(x)
        if float((found - seen).norm()) > 1e-4 * float(seen.norm()):
            return False
    view = weights_view(model, settings=WeightSettings(repeats=2))
    for one in view.estimates:
        if (one.measure, one.key.module) == ("weights.norm", ALL_MODULES):
            return math.isclose(one.value, math.hypot(*norms), rel_tol=1e-4)
    return not maps


def table(kinds: tuple[str, ...] = KINDS) -> list[str]:
    """The rows of these types."""
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = Path(place, "base")
        save_base(base)
        return [row(kind, base, Path(place, kind)) for kind in kinds]


def page(text: str) -> str:
    """The page with the table made anew."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    lines = "\n".join([BEGIN, "", HEAD, "|---|---|---|---|---|---|", *table(), "", END])
    return f"{before}{lines}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{len(KINDS)} types\n")

"""What SAEDashboard needs beside a checkpoint and a dictionary, and the script that runs it.

SAEDashboard takes models of TransformerLens by name; the script gives it transformers' own model in
their place, so that any architecture will do, and of a delta dictionary adapted minus base, which
is what it reads. It compares what its environment computes with what was computed here.

    export.json         where the stream is taken, which latents, which tokens are left out
    check.safetensors   the tokens; what the dictionary reads and how latents fire on the first ones
    dashboard.py        pages and Neuronpedia's file, in SAEDashboard's environment
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import windows
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.models.hooks import run_until
from lorascope.models.sites import Site, block_list_at
from lorascope.runs import write_atomically, write_json

EXPORT, CHECK, SCRIPT = "export.json", "check.safetensors", "dashboard.py"
# Sequences that go through a model at once, and whose rows are kept to compare with.
_AT_ONCE, _COMPARED = 16, 2


@dataclass(frozen=True)
class ShownTexts:
    """What latents are shown on.

    Attributes:
        sources: as `read_documents` takes them.
        sequences: how many, each of exactly so many `tokens`.
        features: most latents to show.
    """

    sources: tuple[str, ...] = ("embedded",)
    sequences: int = 256
    tokens: int = 64
    features: int = 64


@dataclass(frozen=True)
class ShownSequences:
    """Sequences of one length, and which of their tokens count.

    Attributes:
        ignored: special tokens, on which no latent is shown.
    """

    ids: Int[Tensor, "sequences seq"]
    ignored: tuple[int, ...]

    @property
    def counted(self) -> Bool[Tensor, "sequences seq"]:
        """Tokens that latents are shown on."""
        return ~torch.isin(self.ids, torch.tensor(self.ignored, dtype=torch.long))


def sequences(tokenizer: Any, texts: ShownTexts) -> ShownSequences:
    """Sequences of exactly so many tokens, from the beginnings of documents, none twice.

    SAEDashboard has no mask: what is shorter is left out instead of padded.

    Raises:
        InputError: no document is long enough.
    """
    found: dict[tuple[int, ...], None] = {}
    for window in windows(read_documents(texts.sources), tokenizer, texts.tokens):
        if len(window.ids) == texts.tokens:
            found.setdefault(tuple(window.ids))
        if len(found) == texts.sequences:
            break
    if not found:
        raise InputError(
            f"no text has {texts.tokens} tokens: give longer --texts, or fewer --tokens"
        )
    return ShownSequences(torch.tensor(list(found)), tuple(sorted(set(tokenizer.all_special_ids))))


@torch.no_grad()
def stream(module: nn.Module, site: Site, ids: Int[Tensor, "n seq"]) -> Float[Tensor, "n seq d"]:
    """Of every sequence, in float32 on the CPU."""
    device = module.get_input_embeddings().weight.device  # type: ignore[operator]
    parts = [
        run_until(module, [site], some.to(device))[site].float().cpu()
        for some in ids.split(_AT_ONCE)
    ]
    return torch.cat(parts)


@torch.no_grad()
def write(
    folder: Path,
    module: nn.Module,
    site: Site,
    dictionary: Dictionary,
    shown: ShownSequences,
    rows: Float[Tensor, "sequences seq d"],
    texts: ShownTexts,
    models: Sequence[str],
    model_id: str,
) -> None:
    """Write the three files.

    Args:
        rows: what the dictionary reads of the sequences.
        models: folders of the checkpoints; with a second one rows are the first's minus its.
        model_id: what Neuronpedia is to call the model.

    Raises:
        InputError: no latent fires on the sequences.
    """
    largest = torch.zeros(dictionary.n_latents)
    for at in range(0, len(rows), _AT_ONCE):
        codes = dictionary.encode(rows[at : at + _AT_ONCE][shown.counted[at : at + _AT_ONCE]])
        largest = torch.maximum(largest, codes.amax(0)) if len(codes) else largest
    live = (largest > 0).nonzero().squeeze(1)
    if not len(live):
        raise InputError(
            "no latent fires on these texts: is the dictionary made for this model and site?"
        )
    features = live[: texts.features].tolist()
    told = {
        "reads": "adapted minus base" if len(models) > 1 else "the stream",
        "models": list(models),
        "block": f"{block_list_at(module)[0]}.{site.index}",
        "hook": f"blocks.{site.index}.hook_resid_post",
        "layer": site.index,
        "features": features,
        "live": len(live),
        "ignored": list(shown.ignored),
        "texts": ", ".join(texts.sources),
        "model_id": model_id,
        "set": f"lorascope-{dictionary.card.target}",
    }
    write_json(folder / EXPORT, told)
    compared = dictionary.encode(rows[:_COMPARED]) * shown.counted[:_COMPARED][..., None]
    tensors = {
        "tokens": shown.ids,
        "rows": rows[:_COMPARED],
        "codes": compared[..., features],
        "largest": largest[features],
    }
    save_file({name: one.contiguous() for name, one in tensors.items()}, folder / CHECK)
    write_atomically(folder / SCRIPT, _SCRIPT)


_SCRIPT = '''"""Pages of latents by SAEDashboard, and the file that Neuronpedia takes.

    pip install sae-dashboard==0.8.0 "pyarrow<22"    # in an environment of its own
    python dashboard.py [--features 12 40]      # dashboard.html, neuronpedia/batch-0.json
"""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import torch
from sae_dashboard.components_config import (
    ActsHistogramConfig,
    Column,
    FeatureTablesConfig,
    LogitsHistogramConfig,
    LogitsTableConfig,
    SequencesConfig,
)
from sae_dashboard.data_writing_fns import save_feature_centric_vis
from sae_dashboard.layout import SaeVisLayoutConfig
from sae_dashboard.neuronpedia.neuronpedia_converter import NeuronpediaConverter
from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
TOLD = json.loads((HERE / "export.json").read_text())


class Reached(Exception):
    pass


class Streams:
    """What SAEDashboard asks of a model of TransformerLens; transformers runs it."""

    def __init__(self):
        self.models = [
            AutoModelForCausalLM.from_pretrained(
                HERE / name, dtype=torch.float32, attn_implementation="eager"
            ).eval()
            for name in TOLD["models"]
        ]
        file = HERE / TOLD["models"][0] / "tokenizer.json"
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file))
        self.hook_dict = {TOLD["hook"]: SimpleNamespace(ctx={})}
        head = self.models[0].get_output_embeddings().weight.detach()
        self.W_U = head.T
        self.cfg = SimpleNamespace(d_vocab=len(head))

    def rows(self, tokens):
        """What the dictionary reads; of a delta dictionary adapted minus base."""
        found = [stream(model, tokens) for model in self.models]
        return found[0] if len(found) == 1 else found[0] - found[1]

    def run_with_hooks(self, tokens, stop_at_layer, fwd_hooks):
        rows = self.rows(tokens)
        for name, function in fwd_hooks:
            function(rows, hook=self.hook_dict[name])
        return rows


def stream(model, tokens):
    """The output of the block, without what comes after it."""
    seen = []

    def keep(module, inputs, output):
        seen.append(output[0] if isinstance(output, tuple) else output)
        raise Reached

    handle = model.get_submodule(TOLD["block"]).register_forward_hook(keep)
    try:
        with torch.no_grad():
            model(input_ids=tokens, use_cache=False)
    except Reached:
        pass
    finally:
        handle.remove()
    return seen[0]


def compare(model, sae, told):
    """Another version of a library may read a checkpoint otherwise, and would say nothing."""
    count = len(told["rows"])
    rows = model.rows(told["tokens"][:count])
    apart = float((rows - told["rows"]).norm() / told["rows"].norm())
    if not apart < 1e-2:
        raise SystemExit(
            f"rows are {apart:.2g} of their norm from those that lorascope computed: this "
            "environment reads the checkpoint otherwise; try another version of transformers"
        )
    counted = ~torch.isin(told["tokens"][:count], torch.tensor(TOLD["ignored"]))
    with torch.no_grad():
        codes = sae.encode(told["rows"])[..., TOLD["features"]] * counted[..., None]
    difference = float((codes - told["codes"]).abs().max())
    if not difference <= 1e-3 * float(told["largest"].max()):
        raise SystemExit(
            f"latents fire otherwise than in lorascope (by {difference:.2g}): this version of "
            "SAELens reads the dictionary otherwise"
        )
    print(f"as in lorascope: rows to {apart:.1g} of their norm, latents to {difference:.1g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, nargs="*", help="latents; those that fire if none")
    given = parser.parse_args()
    features = given.features or TOLD["features"]
    told = load_file(HERE / "check.safetensors")
    model, sae = Streams(), SAE.load_from_disk(str(HERE / "dictionary"))
    compare(model, sae, told)
    if not getattr(sae.cfg, "rescale_acts_by_decoder_norm", True):
        # SAEDashboard multiplies latents by their directions' norms before it shows them, and
        # SAELens refuses that of a TopK dictionary whose choice would change: shown as they are.
        sae.fold_W_dec_norm = lambda: None
    tokens = told["tokens"]
    sequences = SequencesConfig(
        stack_mode="stack-all",
        buffer=None,
        compute_buffer=True,
        n_quantiles=5,
        top_acts_group_size=20,
        quantile_group_size=5,
    )
    logits = LogitsHistogramConfig(), LogitsTableConfig(), FeatureTablesConfig(n_rows=3)
    columns = [Column(ActsHistogramConfig(), *logits), Column(sequences)]
    config = SaeVisConfig(
        hook_point=TOLD["hook"],
        features=features,
        minibatch_size_features=64,
        minibatch_size_tokens=16,
        ignore_tokens=set(TOLD["ignored"]),
        feature_centric_layout=SaeVisLayoutConfig(columns=columns),
    )
    found = SaeVisRunner(config).run(encoder=sae, model=model, tokens=tokens)
    save_feature_centric_vis(sae_vis_data=found, filename=HERE / "dashboard.html")
    folder = HERE / "neuronpedia"
    folder.mkdir(exist_ok=True)
    settings = NeuronpediaRunnerConfig(
        sae_set=TOLD["set"],
        sae_path=str(HERE / "dictionary"),
        outputs_dir=str(folder),
        n_prompts_total=len(tokens),
        n_tokens_in_prompt=tokens.shape[1],
        huggingface_dataset_path=TOLD["texts"],
        model_id=TOLD["model_id"],
        layer=TOLD["layer"],
    )
    words = {number: word for word, number in model.tokenizer.get_vocab().items()}
    words |= {i: "<|outofrange|>" for i in range(model.cfg.d_vocab) if i not in words}
    text = NeuronpediaConverter.convert_to_np_json(model, found, settings, words)
    (folder / "batch-0.json").write_text(text)
    print(f"{len(features)} latents: {HERE / 'dashboard.html'}, {folder / 'batch-0.json'}")


if __name__ == "__main__":
    main()
'''

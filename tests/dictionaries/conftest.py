"""Small dictionaries of every architecture and in every format, no two tensors alike."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary

D, N = 5, 9


@pytest.fixture
def tmp_path(tmp_path):
    """A folder of the name that tells k of Qwen Scope's files; no other format looks at it."""
    folder = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_3"
    folder.mkdir()
    return folder


@pytest.fixture
def random_dictionary():
    """`random_dictionary(architecture, subtract_bias=True, card=None)`, width 5, 9 latents."""

    def build(architecture, subtract_bias=True, card=None):
        random = torch.Generator().manual_seed(7)
        draw = [torch.randn(*s, generator=random) for s in ((D, N), (N,), (N, D), (D,))]
        options = {"subtract_bias": subtract_bias, "card": card or Card()}
        if architecture == "relu":
            return ReluDictionary(*draw, **options)
        if architecture == "topk":
            return TopKDictionary(*draw, k=3, **options)
        if architecture == "gated":
            scales = [torch.randn(N, generator=random) for _ in range(2)]
            return GatedDictionary(*draw, *scales, **options)
        return JumpReluDictionary(*draw, torch.rand(N, generator=random) + 0.2, **options)

    return build


@pytest.fixture
def rows():
    """Forty rows of width 5."""
    return 2 * torch.randn(40, D, generator=torch.Generator().manual_seed(8)) + 0.5


@dataclass(frozen=True)
class Layout:
    """One format's files: its configuration, and tensors by the names the format gives them."""

    weights: str
    config: str | None
    settings: dict
    shapes: dict

    @property
    def encoder(self):
        """The encoder's name in this format."""
        return next(name for name in self.shapes if "enc" in name.lower() or name == "W_E")

    def write(self, folder, tensors=None, **settings):
        """Write the format; `tensors` replace drawn ones, None leaves one out."""
        random = torch.Generator().manual_seed(3)
        drawn = {n: torch.rand(s, generator=random) + 0.1 for n, s in self.shapes.items()}
        kept = {n: t for n, t in {**drawn, **(tensors or {})}.items() if t is not None}
        path = Path(folder) / self.weights
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.config:
            text = json.dumps({**self.settings, **settings})
            (Path(folder) / self.config).write_text(text, encoding="utf-8")
        if path.suffix == ".npz":
            np.savez(path, **{name: tensor.numpy() for name, tensor in kept.items()})
        elif path.suffix == ".pt":
            torch.save(kept, path)
        else:
            save_file({name: t.clone().contiguous() for name, t in kept.items()}, path)
        return Path(folder)

    def read(self, folder):
        """The stored tensors, by the test's own hands."""
        path = Path(folder) / self.weights
        if path.suffix == ".npz":
            with np.load(path) as stored:
                return {name: torch.from_numpy(stored[name]) for name in stored.files}
        if path.suffix == ".pt":
            return torch.load(path, weights_only=True)
        return load_file(path)


_MATRICES = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,)}
_LINEAR = {
    "encoder.weight": (N, D),
    "encoder.bias": (N,),
    "decoder.weight": (D, N),
    "decoder.bias": (D,),
}
LAYOUTS = {
    "saelens": Layout(
        "sae_weights.safetensors", "cfg.json", {"architecture": "standard"}, _MATRICES
    ),
    "gemma_scope": Layout("params.npz", None, {}, {**_MATRICES, "threshold": (N,)}),
    "gemma_scope_2": Layout(
        "params.safetensors",
        "config.json",
        {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.2.output", "type": "sae"},
        {**{name.lower(): shape for name, shape in _MATRICES.items()}, "threshold": (N,)},
    ),
    "llama_scope": Layout(
        "checkpoints/final.safetensors",
        "hyperparams.json",
        {
            "act_fn": "jumprelu",
            "jump_relu_threshold": 0.5,
            "norm_activation": "dataset-wise",
            "dataset_average_activation_norm": {"in": 8.0, "out": 8.0},
            "hook_point_in": "blocks.2.hook_resid_post",
        },
        _LINEAR,
    ),
    "sparsify": Layout(
        "sae.safetensors",
        "cfg.json",
        {"k": 3, "d_in": D, "num_latents": N},
        {"encoder.weight": (N, D), "encoder.bias": (N,), "W_dec": (N, D), "b_dec": (D,)},
    ),
    "dictionary_learning": Layout(
        "ae.pt",
        "config.json",
        {"trainer": {"dict_class": "AutoEncoderNew", "layer": 2}},
        _LINEAR,
    ),
    "llamascopium": Layout(
        "sae_weights.safetensors",
        "config.json",
        {
            "sae_type": "sae",
            "act_fn": "jumprelu",
            "d_model": D,
            "expansion_factor": N / D,
            "norm_activation": "dataset-wise",
            "hook_point_in": "blocks.2.hook_resid_post",
            "hook_point_out": "blocks.2.hook_resid_post",
        },
        {
            "W_E": (D, N),
            "b_E": (N,),
            "W_D": (N, D),
            "b_D": (D,),
            "activation_function.log_jumprelu_threshold": (N,),
            "dataset_average_activation_norm.blocks.2.hook_resid_post": (),
        },
    ),
    "qwen_scope": Layout(
        "layer2.sae.pt", None, {}, {"W_enc": (N, D), "W_dec": (D, N), "b_enc": (N,), "b_dec": (D,)}
    ),
}


@pytest.fixture(scope="session")
def layouts():
    """Every format lorascope opens, by its name."""
    return LAYOUTS

"""Golden numbers for readers of dictionaries: made with the other projects' own code.

Run where eai-sparsify, dictionary_learning and llamascopium are installed, from the repository's
root, with the formats to make again (all of them by default):

    python scripts/golden_dictionaries.py llamascopium

Each case below `tests/reference/golden/<format>/<case>/` holds the dictionary as its project saves
it, with every number drawn at random, and `expected.json`: inputs, latents and reconstructions
that the project's own loader and classes give for them. `units` is what a latent is multiplied by
where the project has it in other units than the stream's, on a direction of another norm than 1.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path

import torch
from dictionary_learning import dictionary as classes
from dictionary_learning.trainers import batch_top_k, gdm, jumprelu, standard, top_k
from dictionary_learning.trainers import matryoshka_batch_top_k as matryoshka
from dictionary_learning.utils import load_dictionary
from llamascopium.models.sae import SAEConfig, SparseAutoEncoder
from sparsify import SparseCoder, SparseCoderConfig

GOLDEN = Path(__file__).parents[1] / "tests" / "reference" / "golden"
D, N, K, ROWS = 6, 10, 3, 7
COMMON = {
    "steps": 10,
    "activation_dim": D,
    "dict_size": N,
    "layer": 4,
    "lm_name": "org/tiny",
    "device": "cpu",
}
BUFFER = {"d_submodule": D, "io": "out", "n_ctxs": 8, "ctx_len": 16, "device": "cpu"}


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Draw every parameter; none is zero, one, or another's transpose."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random).to(parameter.dtype)


def inputs(seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(1000 + seed)
    return 2 * torch.randn(ROWS, D, generator=random) + 0.5


def write(
    folder: Path,
    x: torch.Tensor,
    z: torch.Tensor,
    y: torch.Tensor,
    package: str,
    units: torch.Tensor | None = None,
) -> None:
    density = (z > 0).float().mean().item()
    assert 0.05 < density < 0.95, f"{folder}: {density:.0%} of the latents are active"
    expected = {
        "made_with": {name: metadata.version(name) for name in (package, "torch")},
        "inputs": x.tolist(),
        "latents": z.detach().float().tolist(),
        "reconstructions": y.detach().float().tolist(),
    }
    if units is not None:
        expected["units"] = units.tolist()
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


def sparsify_cases() -> None:
    cases = {
        "layers.3": (SparseCoderConfig(num_latents=N, k=K), torch.float32),
        "layers.5": (SparseCoderConfig(num_latents=N, k=K, normalize_decoder=False), torch.float32),
        "layers.7": (SparseCoderConfig(num_latents=N, k=K), torch.bfloat16),
        "layers.9": (SparseCoderConfig(num_latents=N, k=5, activation="groupmax"), torch.float32),
    }
    home = GOLDEN / "sparsify"
    for seed, (name, (config, dtype)) in enumerate(cases.items()):
        coder = SparseCoder(D, config, dtype=dtype)
        randomise(coder, seed)
        if config.normalize_decoder:
            coder.set_decoder_norm_to_unit_norm()
        coder.save_to_disk(home / name)
        opened = SparseCoder.load_from_disk(home / name).float()
        x = inputs(seed)
        acts, indices, _ = opened.encode(x)
        z = torch.zeros(ROWS, N).scatter(1, indices, acts)
        write(home / name, x, z, opened(x).sae_out, "eai-sparsify")
    (home / "config.json").write_text(json.dumps({"model": "org/tiny"}), encoding="utf-8")


def trainers() -> dict[str, object]:
    """A trainer of each class, which gives the configuration the library saves."""
    sizes = {"warmup_steps": 1, "sparsity_warmup_steps": 1}
    return {
        "standard": standard.StandardTrainer(
            **COMMON, **sizes, resample_steps=None, submodule_name="resid_post_layer_4"
        ),
        "april_update": standard.StandardTrainerAprilUpdate(**COMMON, **sizes),
        "new": standard.StandardTrainer(
            **COMMON, **sizes, resample_steps=None, dict_class=classes.AutoEncoderNew
        ),
        "top_k": top_k.TopKTrainer(**COMMON, k=K, warmup_steps=1),
        "batch_top_k": batch_top_k.BatchTopKTrainer(**COMMON, k=K, warmup_steps=1),
        "matryoshka": matryoshka.MatryoshkaBatchTopKTrainer(
            **COMMON, k=K, warmup_steps=1, group_fractions=[0.3, 0.7]
        ),
        "jumprelu": jumprelu.JumpReluTrainer(**COMMON, warmup_steps=1, sparsity_warmup_steps=1),
        "gated": gdm.GatedSAETrainer(**COMMON, **sizes),
        "new_as_filed": standard.StandardTrainer(
            **COMMON, **sizes, resample_steps=None, dict_class=classes.AutoEncoderNew
        ),
    }


def dictionary_learning_cases() -> None:
    for seed, (name, trainer) in enumerate(trainers().items()):
        folder = GOLDEN / "dictionary_learning" / name / "trainer_0"
        folder.mkdir(parents=True)
        ae = trainer.ae
        randomise(ae, 10 + seed)
        if hasattr(ae, "threshold"):
            level = torch.rand(ae.threshold.shape, generator=torch.Generator().manual_seed(seed))
            ae.threshold.data = level + 0.5
        # What training on inputs divided by 2.5 does before it saves.
        if hasattr(ae, "scale_biases"):
            ae.scale_biases(2.5)
        config = {"trainer": {**trainer.config, "dict_class": type(ae).__name__}, "buffer": BUFFER}
        if name == "new_as_filed":  # as the library saves it, which its own loader cannot open
            config["trainer"] = trainer.config
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        torch.save({key: value.cpu() for key, value in ae.state_dict().items()}, folder / "ae.pt")
        if name == "new_as_filed":
            opened = classes.AutoEncoderNew.from_pretrained(folder / "ae.pt")
        else:
            opened, _ = load_dictionary(str(folder), "cpu")
        x = inputs(10 + seed)
        with torch.no_grad():
            z = opened.encode(x)
            write(folder, x, z, opened.decode(z), "dictionary_learning")


def llamascopium_cases() -> None:
    """Every gate, with and without the decoder's norms, on scaled rows and as folded."""
    cases = {
        "relu": ({"act_fn": "relu"}, False),
        "topk": ({"act_fn": "topk", "top_k": K}, False),
        "topk_folded": ({"act_fn": "topk", "top_k": K}, True),
        "jumprelu": ({"act_fn": "jumprelu"}, False),
        "jumprelu_bare": (
            {
                "act_fn": "jumprelu",
                "sparsity_include_decoder_norm": False,
                "use_decoder_bias": False,
            },
            False,
        ),
        "jumprelu_folded": ({"act_fn": "jumprelu"}, True),
    }
    hook = "blocks.4.hook_resid_post"
    common = {"d_model": D, "expansion_factor": 2, "norm_activation": "dataset-wise"}
    common |= {"device": "cpu", "dtype": torch.float32}
    for seed, (name, (settings, folded)) in enumerate(cases.items()):
        folder = GOLDEN / "llamascopium" / name
        folder.mkdir(parents=True)
        sae = SparseAutoEncoder(
            SAEConfig(hook_point_in=hook, hook_point_out=hook, **common, **settings)
        )
        randomise(sae, 30 + seed)
        sae.set_dataset_average_activation_norm({hook: 4.0})
        sae.save_pretrained(folder, fold_activation_scale=folded)
        sae.cfg.save_hyperparameters(folder)
        x = inputs(30 + seed)
        scaled, factors = sae.normalize_activations({hook: x}, return_scale_factor=True)
        z = sae.encode(scaled[hook])
        norms = sae.decoder_norm() if sae.cfg.sparsity_include_decoder_norm else torch.ones(2 * D)
        y = sae.decode(z) / factors[hook]
        write(folder, x, z, y, "llamascopium", norms / factors[hook])


FORMATS = {
    "sparsify": sparsify_cases,
    "dictionary_learning": dictionary_learning_cases,
    "llamascopium": llamascopium_cases,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or FORMATS:
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        with torch.set_grad_enabled(name == "dictionary_learning"):
            FORMATS[name]()

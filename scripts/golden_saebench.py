"""Golden numbers of SAEBench's own functions on made-up data; run by scripts/golden_saebench.sh.

    python scripts/golden_saebench.py tests/studies/evaluate/golden_saebench.json

Runs in SAEBench's environment, without lorascope. The data come from numpy's legacy generator, so
that the test makes the same ones.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from sae_bench.evals.absorption.feature_absorption_calculator import FeatureAbsorptionCalculator
from sae_bench.evals.scr_and_tpp import main as targeted
from sae_bench.evals.sparse_probing import probe_training

WIDTH, LATENTS = 6, 30


def probing_data():
    """(codes, labels) to train on and held out; label 1 raises latents 3, 7 and 11."""
    draw = np.random.RandomState(0)
    labels = np.arange(400) % 2
    codes = np.maximum(draw.randn(400, LATENTS), 0)
    for latent, by in ((3, 0.9), (7, 0.6), (11, 0.4)):
        codes[:, latent] += by * labels
    x, y = torch.tensor(codes, dtype=torch.float32), torch.tensor(labels, dtype=torch.int)
    return (x[:240], y[:240]), (x[240:], y[240:])


def probing(ks=(1, 2, 5, 20)):
    (x, y), (other, held_out) = probing_data()
    found = {}
    for k in ks:
        mask = probe_training.get_top_k_mean_diff_mask(x, y, k)
        few = probe_training.apply_topk_mask_reduce_dim(x, mask)
        rest = probe_training.apply_topk_mask_reduce_dim(other, mask)
        _, accuracy = probe_training.train_sklearn_probe(few, y, rest, held_out)
        chosen = (~mask).nonzero().squeeze(1).tolist()
        found[str(k)] = {"latents": chosen, "accuracy": float(accuracy)}
    return found


def dictionary():
    """encode, decode, W_dec: a plain ReLU dictionary without biases."""
    draw = np.random.RandomState(1)
    directions = torch.tensor(draw.randn(LATENTS, WIDTH), dtype=torch.float32)
    return SimpleNamespace(
        W_dec=directions,
        device=torch.device("cpu"),
        encode=lambda x: torch.relu(x @ directions.T),
        decode=lambda z: z @ directions,
    )


def perturbing():
    """Effects of latents on a probe, for TPP and SCR, and what is left once five are zero."""
    draw = np.random.RandomState(2)
    rows = {
        "a": torch.tensor(draw.randn(20, 4, WIDTH), dtype=torch.float32),
        "b": torch.tensor(draw.randn(20, 4, WIDTH) + 0.5, dtype=torch.float32),
    }
    weight = torch.tensor(draw.randn(1, WIDTH), dtype=torch.float32)
    probe = SimpleNamespace(net=SimpleNamespace(weight=weight))
    torch.manual_seed(0)
    signed = targeted.get_effects_per_class_precomputed_acts(
        dictionary(), probe, "a", rows, False, 8
    )
    chosen = targeted.select_top_n_features(signed, 5, "a")
    left = targeted.ablated_precomputed_activations(rows["a"], dictionary(), chosen, 8)
    return {"effects": signed.tolist(), "zeroed": left.tolist()}


def tpp():
    """The arithmetic from accuracies to the score."""
    clean = {"a": 0.9, "b": 0.8, "c": 0.95}
    after = {
        "a": {2: {"a": 0.6, "b": 0.79, "c": 0.9}},
        "b": {2: {"a": 0.88, "b": 0.7, "c": 0.95}},
        "c": {2: {"a": 0.9, "b": 0.8, "c": 0.5}},
    }
    overall, _ = targeted.create_tpp_plotting_dict(after, clean)
    return overall["tpp_threshold_2_total_metric"]


def absorption():
    """Both kinds of absorption of forty words, by main latents 0 and 1."""
    draw = np.random.RandomState(3)
    rows = torch.tensor(draw.randn(40, WIDTH) * 2, dtype=torch.float32)
    direction = torch.tensor(draw.randn(WIDTH), dtype=torch.float32)
    codes = torch.tensor(np.maximum(draw.randn(40, LATENTS) * 2 - 1.5, 0), dtype=torch.float32)
    words = [f"word{i}" for i in range(40)]
    made = iter(rows.split(10))
    coded = iter(codes.split(10))
    hook = "blocks.0.hook_resid_post"

    def run(prompts, names_filter):
        del prompts, names_filter
        return None, {hook: next(made)[:, None, :]}

    model = SimpleNamespace(run_with_cache=run, to_tokens=lambda text: torch.zeros(1, 4))
    own = dictionary()
    own.encode = lambda x: next(coded)
    calculator = FeatureAbsorptionCalculator(
        model=model, icl_word_list=words, max_icl_examples=2, word_token_pos=0
    )
    found = calculator.calculate_absorption(own, words, direction, [0, 1], 0, show_progress=False)
    return {
        "full": [bool(one.is_full_absorption) for one in found.word_results],
        "fraction": [float(one.absorption_fraction) for one in found.word_results],
    }


def main() -> None:
    golden = {
        "sae_bench": metadata.version("sae-bench"),
        "scikit_learn": metadata.version("scikit-learn"),
        "probing": probing(),
        "perturbing": perturbing(),
        "tpp": tpp(),
        "absorption": absorption(),
    }
    Path(sys.argv[1]).write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()

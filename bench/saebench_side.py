"""Sparse probing by SAEBench 0.6.0, for `probing.py`: run by the Python of SAEBench's environment.

Reads the folder that `probing.py` writes (model, dictionary, sets), then for every line on standard
input takes all sets once and prints {"seconds", "accuracy"} as a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from sae_bench.evals.sparse_probing import main as probing
from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
from sae_lens import SAE
from transformer_lens.model_bridge import TransformerBridge


def main() -> None:
    """Open everything, say so, and wait for turns."""
    folder, torch_threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(torch_threads)
    given = json.loads((folder / "given.json").read_text(encoding="utf-8"))
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        model = TransformerBridge.boot_transformers(str(folder / "model"), device="cpu")
        sae = SAE.load_from_disk(folder / "dictionary", device="cpu")
        # Its sets come from the hub by name; these are the same rows as the other side's.
        probing.dataset_utils.get_multi_label_train_test_data = lambda name, *_: given["sets"][name]
        classes = probing.dataset_info.chosen_classes_per_dataset
        classes |= {name: ["0", "1"] for name in given["sets"]}
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            found = _turn(given, model, sae)
        print(json.dumps(found), file=answers, flush=True)


def _turn(given: dict, model: TransformerBridge, sae: SAE) -> dict:
    config = SparseProbingEvalConfig(
        model_name="given",
        llm_dtype="float32",
        llm_batch_size=given["batch"],
        context_length=given["context"],
        k_values=given["k"],
    )
    found, started = {}, time.process_time()
    for name in given["sets"]:
        with tempfile.TemporaryDirectory() as artifacts:
            results, _ = probing.run_eval_single_dataset(
                *(name, config, sae, model, given["layer"], given["hook"], "cpu", artifacts),
                save_activations=False,
            )
        found[name] = {k: results[f"sae_top_{k}_test_accuracy"] for k in given["k"]}
    return {"seconds": time.process_time() - started, "accuracy": found}


if __name__ == "__main__":
    main()

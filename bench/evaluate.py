"""Time sparse probing against SAEBench's on the same model, sets and dictionary, in one process.

    python bench/evaluate.py            # minutes
    python bench/evaluate.py --quick    # smaller

Needs SAEBench beside this package: an environment with `pip install sae-bench==0.6.0 peft` and this
package's folder on PYTHONPATH (its pins do not let both be installed).

A small random GPT-2 under transformers, the same weights under TransformerLens, one ReLU dictionary
in both libraries' classes, the five categories of the package's records, each against the others.
Both sides run the model, encode, and train probes on k latents, k channels and the whole stream.
SAEBench is run without its probe on all latents (`lower_vram_usage`), which this package has not.
Sides take turns; printed are seconds (median), rows a second, their ratio, and both accuracies.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lorascope.dictionaries.files import save
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.evaluating.labelled import Labelled, classes
from lorascope.evaluating.probing import OWN, probe_set
from lorascope.evaluating.settings import Probing
from lorascope.evaluating.subjects import Opened
from lorascope.models.load import read_tokenizer
from lorascope.models.sites import parse_site

KS = (1, 2, 5)
CONTEXT = 128
WIDTH, BLOCKS, HEADS = 256, 4, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows, a smaller dictionary")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rows = (40, 20) if options.quick else (200, 100)
    latents = 2048 if options.quick else 8192
    torch.set_num_threads(1)
    tokenizer = read_tokenizer("embedded")
    model, dictionary = made(tokenizer, latents)
    texts = {name: list(dict.fromkeys(found)) for name, found in classes("embedded").items()}
    train = {name: found[: rows[0]] for name, found in texts.items()}
    test = {name: found[rows[0] : sum(rows)] for name, found in texts.items()}
    theirs = saebench(model, dictionary, tokenizer, train, test)
    sides = {"SAEBench": theirs, "lorascope": ours(model, dictionary, tokenizer, texts, rows)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    accuracy = {}
    for _ in range(options.repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                accuracy[name] = run()
            seconds[name].append(time.perf_counter() - start)
    count = len(texts) * 2 * sum(rows)
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        said = ", ".join(f"k={k} {value:.3f}" for k, value in accuracy[name].items())
        print(f"{name:10} {middle:8.2f} s {count / middle:10.1f} probe rows/s   accuracy {said}")
    ratios = [a / b for a, b in zip(seconds["SAEBench"], seconds["lorascope"], strict=True)]
    print(f"ratio of seconds, turn by turn: {', '.join(f'{one:.1f}' for one in ratios)}")


def made(tokenizer, latents):
    """A random GPT-2 and a random dictionary of it."""
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=WIDTH, n_layer=BLOCKS, n_head=HEADS, n_positions=CONTEXT
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    directions = torch.randn(latents, WIDTH)
    directions /= directions.norm(dim=1, keepdim=True)
    bias = torch.full((latents,), -1.0)
    parts = (directions.T.clone(), bias, directions, torch.zeros(WIDTH))
    return model, ReluDictionary(*parts)


def ours(model, dictionary, tokenizer, texts, rows):
    """One run of this package's probing; returns {k: mean accuracy}."""
    site = parse_site("layers.2")
    subject = Opened("bench", model, tokenizer, {site: dictionary}, {site: dictionary})
    settings = Probing(k=KS, train=2 * rows[0], test=2 * rows[1], context=CONTEXT)
    sets = []
    for name, found in texts.items():
        others = [text for other in texts if other != name for text in texts[other]]
        labels = (*([1] * len(found)), *([0] * len(others)))
        sets.append(Labelled(name, (*found, *others), labels))

    def run():
        taken = [probe_set(subject, site, one, {}, settings, adapter=False) for one in sets]
        return {k: statistics.mean(one[OWN, k].accuracy for one in taken) for k in KS}

    return run


def saebench(model, dictionary, tokenizer, train, test):
    """One run of SAEBench's sparse probing of one dataset; returns {k: mean accuracy}."""
    from sae_bench.evals.sparse_probing import main as theirs
    from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
    from sae_lens import SAE
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    shape = HookedTransformerConfig(
        n_layers=BLOCKS,
        d_model=WIDTH,
        n_ctx=CONTEXT,
        d_head=WIDTH // HEADS,
        n_heads=HEADS,
        d_mlp=4 * WIDTH,
        d_vocab=len(tokenizer),
        act_fn="gelu_new",
        normalization_type="LN",
        original_architecture="GPT2LMHeadModel",
        default_prepend_bos=False,
    )
    lens = HookedTransformer(shape, tokenizer=tokenizer)
    lens.load_state_dict(convert_gpt2_weights(model, shape), strict=False)
    with tempfile.TemporaryDirectory() as folder:
        save(dictionary, Path(folder) / "dictionary")
        sae = SAE.load_from_disk(str(Path(folder) / "dictionary"), device="cpu")
    config = SparseProbingEvalConfig(
        model_name="bench",
        context_length=CONTEXT,
        llm_batch_size=32,
        llm_dtype="float32",
        k_values=list(KS),
        lower_vram_usage=True,
    )
    theirs.dataset_utils.get_multi_label_train_test_data = lambda *_: (train, test)
    theirs.dataset_info.chosen_classes_per_dataset["bench"] = list(train)

    def run():
        with tempfile.TemporaryDirectory() as artifacts:
            found, _ = theirs.run_eval_single_dataset(
                "bench", config, sae, lens, 2, "blocks.2.hook_resid_post", "cpu", artifacts, False
            )
        return {k: found[f"sae_top_{k}_test_accuracy"] for k in KS}

    return run


if __name__ == "__main__":
    main()

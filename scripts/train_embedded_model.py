"""Train the small language model that ships with lorascope, from scratch, on a folder of texts.

    python scripts/train_embedded_model.py --corpus DIR --out src/lorascope/embedded/model

DIR holds `*.jsonl` or `*.jsonl.gz` files with one {"text": ...} a line; each file is one corpus.

1. Hold out 4 % of the documents of every corpus (at least one), chosen by hash.
2. Train a byte-level BPE of 4,096 tokens on the rest.
3. Train a Gemma-2-shaped model: every window opens with BOS, documents are joined by EOS.
4. Measure the held-out loss per corpus beside unigram and interpolated bigram models.
5. Save fp16 safetensors, tokenizer, `training.json` and the model card.

`--card` alone writes the card again from `training.json`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from lorascope.training.loop import StepProgress, train
from lorascope.training.schedules import warmup_cosine

PAD, EOS, BOS = 0, 1, 2
SPECIAL = ["<pad>", "<eos>", "<bos>"]
VOCABULARY = 4096
CONTEXT = 512
HELD_OUT_SHARE = 0.04

Documents = dict[str, list[str]]


def read_corpora(folder: Path) -> Documents:
    """Texts by corpus name."""
    corpora: Documents = {}
    for path in sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")]):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            corpora[path.name.split(".")[0]] = [json.loads(line)["text"] for line in lines]
    if not corpora:
        sys.exit(f"{folder}: no .jsonl or .jsonl.gz files; give --corpus a folder of them")
    return corpora


def split(corpora: Documents) -> tuple[Documents, Documents]:
    """(training, held-out) documents; the held-out ones have the lowest hashes of their corpus."""
    training: Documents = {}
    held_out: Documents = {}
    for name, texts in corpora.items():
        ranked = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
        cut = max(1, round(HELD_OUT_SHARE * len(ranked)))
        held_out[name], training[name] = ranked[:cut], ranked[cut:]
    return training, held_out


def train_tokenizer(training: Documents) -> PreTrainedTokenizerFast:
    """A byte-level BPE that opens every text with BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((t for texts in training.values() for t in texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
        padding_side="right",
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    """All documents as one stream of token ids, each followed by EOS."""
    stream: list[int] = []
    for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
        stream.extend(ids)
        stream.append(EOS)
    return np.asarray(stream, dtype=np.int32)


def windows(stream: np.ndarray) -> Tensor:
    """Consecutive windows of CONTEXT ids, each opened by BOS: [n, CONTEXT]."""
    body = CONTEXT - 1
    count = len(stream) // body
    rows = torch.from_numpy(stream[: count * body].astype(np.int64)).view(count, body)
    return torch.cat([torch.full((count, 1), BOS), rows], dim=1)


def batches(stream: np.ndarray, batch: int, seed: int, device: str) -> Iterator[Tensor]:
    """Endless batches; every epoch cuts the stream at another offset and shuffles the windows."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        offset = int(torch.randint(CONTEXT - 1, (1,), generator=generator))
        rows = windows(stream[offset:])
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows) - batch + 1, batch):
            yield rows[order[start : start + batch]].to(device, non_blocking=True)


def token_losses(model: torch.nn.Module, rows: Tensor) -> Tensor:
    """Cross-entropy of every predicted token in nats, [batch, CONTEXT - 1]."""
    logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
    return functional.cross_entropy(
        logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none"
    ).view(len(rows), -1)


@torch.no_grad()
def held_out_loss(model: torch.nn.Module, streams: dict[str, np.ndarray], device: str) -> dict:
    """Mean nats per token by corpus and over all tokens, on windows of CONTEXT."""
    sums, counts = {}, {}
    for name, stream in streams.items():
        total, count = 0.0, 0
        for rows in windows(stream).split(32):
            losses = token_losses(model, rows.to(device))
            total, count = total + losses.double().sum().item(), count + losses.numel()
        sums[name], counts[name] = total, count
    by_corpus = {name: sums[name] / counts[name] for name in sums}
    return {"all": sum(sums.values()) / sum(counts.values()), "by_corpus": by_corpus}


def ngram_losses(training: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Held-out nats per token of an add-one unigram and of an interpolated bigram model.

    p(b|a) = w · count(ab)/count(a) + (1 − w) · unigram(b), w chosen on the last tenth of training.
    """
    fit, tune = np.split(training, [int(0.9 * len(training))])
    unigram = np.bincount(fit, minlength=VOCABULARY) + 1.0
    unigram /= unigram.sum()
    pairs = np.bincount(
        fit[:-1].astype(np.int64) * VOCABULARY + fit[1:], minlength=VOCABULARY**2
    ).reshape(VOCABULARY, VOCABULARY)
    firsts = np.maximum(pairs.sum(1), 1)

    def bigram(stream: np.ndarray, weight: float) -> float:
        a, b = stream[:-1], stream[1:]
        p = weight * pairs[a, b] / firsts[a] + (1 - weight) * unigram[b]
        return float(-np.log(p).mean())

    weight = min(np.linspace(0.05, 0.95, 19), key=lambda w: bigram(tune, w))
    return {
        "unigram": float(-np.log(unigram[held_out]).mean()),
        "bigram": bigram(held_out, weight),
        "bigram_weight": float(weight),
    }


def build_model(arguments: argparse.Namespace) -> Gemma2ForCausalLM:
    """A Gemma-2-shaped model with tied embeddings and alternating local and global attention."""
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=arguments.width,
        num_hidden_layers=arguments.blocks,
        num_attention_heads=arguments.heads,
        num_key_value_heads=arguments.heads // 2,
        head_dim=arguments.head_width,
        query_pre_attn_scalar=arguments.head_width,
        intermediate_size=arguments.mlp,
        max_position_embeddings=CONTEXT,
        sliding_window=CONTEXT // 2,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    torch.manual_seed(arguments.seed)
    return Gemma2ForCausalLM(config)


def optimizer_for(model: torch.nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def fit(model: Gemma2ForCausalLM, stream: np.ndarray, held_out: dict, arguments) -> list[dict]:
    """Train for the stated number of epochs; returns the held-out losses seen on the way."""
    device = arguments.device
    forward = torch.compile(model) if arguments.compile else model
    steps = math.ceil(arguments.epochs * len(stream) / (arguments.batch * (CONTEXT - 1)))
    curve, started = [], time.time()

    def step(rows: Tensor) -> dict[str, Tensor]:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = token_losses(forward, rows).mean()
        loss.backward()
        return {"loss": loss}

    def report(progress: StepProgress) -> None:
        done = progress.step + 1
        if done % max(1, steps // 12) or progress.last:
            return
        losses = held_out_loss(model, held_out, device)
        curve.append({"step": done, "held_out": losses["all"]})
        rate = done * arguments.batch * CONTEXT / (time.time() - started)
        print(
            f"{done}/{steps} train {progress.scalars['loss']:.3f} "
            f"held-out {losses['all']:.4f} {rate:,.0f} tokens/s",
            flush=True,
        )

    train(
        step,
        batches(stream, arguments.batch, arguments.seed, device),
        optimizer_for(model, arguments.rate, arguments.decay),
        steps=steps,
        schedule=warmup_cosine(0.03, floor=0.01),
        clip_norm=1.0,
        observers=[report],
        module=model,
    )
    return curve


SOURCES = {
    "gutenberg": ("17 books of Project Gutenberg", "public domain"),
    "peps": ("736 Python Enhancement Proposals", "public domain / CC0"),
    "state_of_the_union": ("State of the Union addresses", "US government, public domain"),
    "inaugural_addresses": ("presidential inaugural addresses", "US government, public domain"),
    "wikipedia": ("30 English Wikipedia articles", "CC BY-SA"),
    "c4": ("287 web pages of C4", "ODC-BY"),
}


def write_card(folder: Path) -> None:
    """The model card, from `training.json`."""
    record = json.loads((folder / "training.json").read_text())
    losses, counts = record["held_out"]["by_corpus"], record["held_out_tokens"]
    rows = [
        f"| {name} | {' | '.join(SOURCES.get(name, ('', '')))} | {counts[name]:,} | {loss:.3f} |"
        for name, loss in losses.items()
    ]
    settings = record["settings"]
    flags = " --compile" if settings["compile"] == "True" else ""
    template = Path(__file__).with_name("embedded_model_card.md").read_text()
    text = template.format(
        **record["ngrams"],
        parameters=record["parameters"],
        blocks=settings["blocks"],
        width=settings["width"],
        vocabulary=VOCABULARY,
        context=CONTEXT,
        training_tokens=record["training_tokens"],
        held_out_tokens=sum(counts.values()),
        rows="\n".join(rows),
        loss=record["held_out"]["all"],
        command=f"python scripts/train_embedded_model.py --corpus DIR --out {folder}{flags}",
        seconds=record["seconds"],
        device=record["device"],
    )
    (folder / "README.md").write_text(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--head-width", type=int, default=32)
    parser.add_argument("--mlp", type=int, default=640)
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--decay", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--card", action="store_true", help="only write the card again")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.card:
        write_card(arguments.out)
        return
    if arguments.corpus is None:
        sys.exit("--corpus is missing: give a folder of .jsonl or .jsonl.gz files")
    torch.set_float32_matmul_precision("high")
    training, held_out = split(read_corpora(arguments.corpus))
    tokenizer = train_tokenizer(training)
    streams = {name: encode(tokenizer, texts) for name, texts in held_out.items()}
    stream = np.concatenate([encode(tokenizer, texts) for texts in training.values()])
    print(f"{len(stream):,} training tokens, {sum(map(len, streams.values())):,} held out")

    model = build_model(arguments).to(arguments.device)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters")
    started = time.time()
    curve = fit(model, stream, streams, arguments)
    seconds = time.time() - started

    half = model.half()
    arguments.out.mkdir(parents=True, exist_ok=True)
    half.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    shipped = Gemma2ForCausalLM.from_pretrained(
        arguments.out, dtype=torch.float32, attn_implementation="eager"
    ).to(arguments.device)
    record = {
        "parameters": parameters,
        "training_tokens": len(stream),
        "held_out_tokens": {name: len(s) for name, s in streams.items()},
        "seconds": seconds,
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "settings": {
            k: str(v) for k, v in vars(arguments).items() if k not in {"corpus", "out", "card"}
        },
        "curve": curve,
        "held_out": held_out_loss(shipped.eval(), streams, arguments.device),
        "ngrams": ngram_losses(stream, np.concatenate(list(streams.values()))),
    }
    (arguments.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    write_card(arguments.out)
    print(json.dumps({k: record[k] for k in ("held_out", "ngrams", "seconds")}, indent=1))


if __name__ == "__main__":
    main()

"""The trainers that `sae_training.py` times: this package's and its installed peers'.

Every side takes one optimiser step of Adam at the same constant rate on the batch it is given,
its own limit on the gradients' norm included, on
inputs scaled to mean norm 1, from the same directions, encoder and decoder bias.
A peer is driven through its own training classes; where it has a trainer, that takes the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorascope.training.architectures import ReLU, TopK
from lorascope.training.architectures.objective import TrainingStart
from lorascope.training.dictionaries import product_dtype
from lorascope.training.settings import Fitting


@dataclass(frozen=True)
class Task:
    """One comparison: shape, architecture, and what it takes."""

    architecture: str
    d: int
    n: int
    batch: int
    steps: int
    k: int = 32
    l1: float = 0.15
    rate: float = 1e-3


@dataclass(frozen=True)
class Side:
    """A trainer in progress: its step, and what it does with rows it has not seen."""

    step: Callable[[Tensor], object]
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


Maker = Callable[[Task, TrainingStart, Tensor], Side]


def settings(task: Task) -> TopK | ReLU:
    """This package's settings for a task."""
    if task.architecture == "topk":
        return TopK(n_latents=task.n, k=task.k)
    return ReLU(n_latents=task.n, l1=task.l1)


def ours(task: Task, start: TrainingStart, encoder: Tensor, products: str = "auto") -> Side:
    """This package: written-out gradients, matrix products in the hardware's own type."""
    device = start.bias.device
    objective = settings(task).objective(start, product_dtype(products, device))
    with torch.no_grad():
        objective.encoder.copy_(encoder)
    parameters = list(objective.parameters())
    optimizer = torch.optim.Adam(parameters, lr=task.rate, fused=True)

    def step(x: Tensor) -> object:
        scalars = objective.step(x)
        torch.nn.utils.clip_grad_norm_(parameters, Fitting().clip)
        optimizer.step()
        return scalars

    def dictionary() -> Any:
        from lorascope.dictionaries.card import Card

        return objective.dictionary(1.0, Card()).to(device)

    return Side(step, lambda x: dictionary().encode(x), lambda z: dictionary().decode(z))


def ours_float32(task: Task, start: TrainingStart, encoder: Tensor) -> Side:
    """This package with float32 products."""
    return ours(task, start, encoder, "float32")


def saelens(task: Task, start: TrainingStart, encoder: Tensor, autocast: bool = False) -> Side:
    """SAELens' trainer on its own training class."""
    from sae_lens import (
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    device = str(start.bias.device)
    shared = {"d_in": task.d, "d_sae": task.n, "device": device, "apply_b_dec_to_input": True}
    sae: Any = (
        TopKTrainingSAE(TopKTrainingSAEConfig(k=task.k, **shared))
        if task.architecture == "topk"
        else StandardTrainingSAE(StandardTrainingSAEConfig(l1_coefficient=task.l1, **shared))
    )
    with torch.no_grad():
        sae.W_dec.copy_(start.directions)
        sae.W_enc.copy_(encoder.T)
        sae.b_dec.copy_(start.bias)
        sae.b_enc.zero_()
    config = SAETrainerConfig(
        total_training_samples=task.steps * task.batch,
        train_batch_size_samples=task.batch,
        lr=task.rate,
        device=device,
        lr_end=task.rate,
        autocast=autocast,
    )
    nothing: Iterator[Tensor] = iter(())
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=nothing)
    return Side(trainer.step, sae.encode, sae.decode)


def saelens_autocast(task: Task, start: TrainingStart, encoder: Tensor) -> Side:
    """SAELens under its own bfloat16 autocast."""
    return saelens(task, start, encoder, autocast=True)


def dictionary_learning(task: Task, start: TrainingStart, encoder: Tensor) -> Side:
    """dictionary_learning's trainers."""
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    shared = {
        "steps": task.steps,
        "activation_dim": task.d,
        "dict_size": task.n,
        "layer": 0,
        "lm_name": "none",
        "lr": task.rate,
        "warmup_steps": 1,
        "device": str(start.bias.device),
    }
    trainer: Any = (
        TopKTrainer(k=task.k, **shared)
        if task.architecture == "topk"
        else StandardTrainer(l1_penalty=task.l1, sparsity_warmup_steps=None, **shared)
    )
    coder = trainer.ae
    with torch.no_grad():
        coder.decoder.weight.copy_(start.directions.T)
        coder.encoder.weight.copy_(encoder)
        (coder.b_dec if hasattr(coder, "b_dec") else coder.bias).copy_(start.bias)
        coder.encoder.bias.zero_()
    steps = iter(range(task.steps))
    return Side(lambda x: trainer.update(next(steps), x), coder.encode, coder.decode)


def sparsify(task: Task, start: TrainingStart, encoder: Tensor) -> Side:
    """sparsify's coder, its loss and its constraints, under Adam."""
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    device = start.bias.device
    coder = SparseCoder(task.d, SparseCoderConfig(num_latents=task.n, k=task.k), device=device)
    with torch.no_grad():
        assert isinstance(coder.W_dec, nn.Parameter)
        coder.W_dec.copy_(start.directions)
        coder.encoder.weight.copy_(encoder)
        coder.b_dec.copy_(start.bias)
    optimizer = torch.optim.Adam(coder.parameters(), lr=task.rate)

    def step(x: Tensor) -> object:
        coder.set_decoder_norm_to_unit_norm()
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        return None

    def encode(x: Tensor) -> Tensor:
        found = coder.encode(x)
        z = torch.zeros(len(x), task.n, device=x.device)
        return z.scatter(1, found.top_indices, found.top_acts)

    return Side(step, encode, lambda z: z @ coder.W_dec + coder.b_dec)


SIDES: dict[str, dict[str, Maker]] = {
    "topk": {
        "lorascope": ours,
        "lorascope float32": ours_float32,
        "SAELens": saelens,
        "SAELens autocast": saelens_autocast,
        "dictionary_learning": dictionary_learning,
        "sparsify": sparsify,
    },
    "relu": {
        "lorascope": ours,
        "lorascope float32": ours_float32,
        "SAELens": saelens,
        "SAELens autocast": saelens_autocast,
        "dictionary_learning": dictionary_learning,
    },
}

"""131,072 latents at rank 1: what training holds beside the model and the dictionary."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorascope.dictionaries.topk import TopKDictionary
from lorascope.latent_adapters.fitting import Examples, fit
from lorascope.latent_adapters.reading import FrozenSite
from lorascope.latent_adapters.settings import LatentTraining
from lorascope.latent_adapters.sparsity import TopM
from lorascope.randomness import generator

from .conftest import SITE, WIDTH, behaviour

N = 131072


class Held(TorchDispatchMode):
    """Counts the bytes of tensors alive that were made while it is on; those of `modules` were."""

    def __init__(self, *modules):
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakSet()
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                self._known.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(one, torch.Tensor) and one.device.type == "cpu":
                self._count(one.untyped_storage())
        return out

    def _count(self, storage):
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size):
        self.now -= size


def test_training_holds_a_few_vectors_over_latents(tiny_model, tokenizer):
    directions = torch.randn(N, WIDTH, generator=generator(0))
    directions /= directions.norm(dim=1, keepdim=True)
    parts = (directions.T.contiguous(), torch.zeros(N), directions, torch.zeros(WIDTH))
    dictionary = TopKDictionary(*parts, k=64)
    reading = FrozenSite(tiny_model("llama"), tokenizer, dictionary, SITE)
    with Held(dictionary, reading.module) as reading_held:
        examples = Examples.read(reading, *behaviour(8))
    # One block of dense activations at a time, and their selection; all tokens at once would
    # take 8 × 2 × 9 rows of 131,072.
    assert reading_held.peak < 600e6
    codes = examples.changed[0].codes
    assert len(codes.latent) == 64 * len(codes.counts)
    settings = LatentTraining(steps=3, batch=8, sparsity=TopM(m=32), products="float32")
    with Held(dictionary, reading.module) as held:
        fit(reading, examples, settings, model="tiny")
    # Two factors, gradients, moments and a few of their size in passing, 0.5 MB each; 8 windows of
    # dense latents would be 40 MB.
    assert 5e6 < held.peak < 25e6

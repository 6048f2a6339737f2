"""Adapt on the model that ships with the package: no network, no GPU, a few minutes."""

from __future__ import annotations

from lorascope.fits.settings import Affine, Lora, Tuned
from lorascope.studies.adapt.study import AdaptStudy, Around, Experiments, FitSettings, TrainTopK
from lorascope.workflows.settings import Texts


def adapt_demo(quick: bool = False) -> AdaptStudy:
    """Three L0s and two sites at two ranks, with baselines; one dictionary if quick."""
    return _quick() if quick else _full()


def _fit(tokens: int, rank: int) -> FitSettings:
    return FitSettings(
        lora=Lora(rank=rank, blocks="all", rate=1e-3),
        affine=Affine(rate=3e-4),
        dictionary=Tuned(rate=1e-3),
        tokens=tokens,
        batch=8,
        evaluations=0,
        random_draws=6,
    )


def _full() -> AdaptStudy:
    return AdaptStudy(
        name="demo-adapt",
        model="embedded",
        texts=Texts(sources=("embedded",), documents=1200, held_out=0.15),
        context=64,
        measure_tokens=1500,
        dictionaries=Around(
            train=TrainTopK(
                sites=("layers.3", "layers.1"),
                n_latents=(1024,),
                k=(16, 8, 32),
                tokens=100_000,
            )
        ),
        fit=_fit(20_000, 16),
        experiments=Experiments(
            ranks=(4, 16),
            baselines=("dictionary", "affine", "lora_next", "lora", "lora+affine"),
            single_blocks=False,
            several=(("layers.1", "layers.3"),),
        ),
        seeds=(0,),
    )


def _quick() -> AdaptStudy:
    return AdaptStudy(
        name="demo-adapt-quick",
        model="embedded",
        texts=Texts(sources=("embedded",), documents=400, held_out=0.15),
        context=64,
        measure_tokens=1300,
        dictionaries=Around(
            train=TrainTopK(sites=("layers.3",), n_latents=(512,), k=(8,), tokens=30_000)
        ),
        fit=_fit(6_000, 16),
        experiments=Experiments(
            ranks=(16,),
            baselines=("affine", "lora_next", "lora"),
            single_blocks=False,
            distances=False,
        ),
        seeds=(0,),
    )

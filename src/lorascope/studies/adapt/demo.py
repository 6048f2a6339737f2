"""Adapt on the model that ships with the package: no network, no GPU, a few minutes."""

from __future__ import annotations

from lorascope.fits.settings import Affine, Lora, Tuned
from lorascope.measures.settings import Steering
from lorascope.studies.adapt.study import (
    AdaptStudy,
    Around,
    Experiments,
    FitSettings,
    SteeredLatents,
    Times,
    TrainTopK,
)
from lorascope.workflows.settings import Texts


def adapt_demo(quick: bool = False) -> AdaptStudy:
    """Every question of the paper on one page; fewer tokens and conditions if quick."""
    return _quick() if quick else _full()


def _fit(tokens: int, rank: int, draws: int = 6) -> FitSettings:
    return FitSettings(
        lora=Lora(rank=rank, blocks="all", rate=1e-3),
        affine=Affine(rate=3e-4),
        dictionary=Tuned(rate=1e-3),
        tokens=tokens,
        batch=8,
        evaluations=0,
        random_draws=draws,
    )


def _full() -> AdaptStudy:
    return AdaptStudy(
        name="demo-adapt",
        model="embedded",
        texts=Texts(sources=("embedded",), documents=1200, held_out=0.15),
        context=64,
        measure_tokens=2000,
        dictionaries=Around(
            train=TrainTopK(
                sites=("layers.3", "layers.1"),
                n_latents=(1024, 2048),
                k=(16, 8, 32),
                tokens=80_000,
            )
        ),
        fit=_fit(12_000, 16, draws=4),
        experiments=Experiments(
            ranks=(4, 16),
            every_rank=False,
            baselines=("dictionary", "affine", "lora_next", "lora", "lora+affine", "lora_other_kl"),
            several=(("layers.1", "layers.3"), ("layers.1", "layers.2", "layers.3")),
            times=Times(
                tokens=60_000,
                end_to_end_tokens=16_000,
                shares=(0.25, 1.0),
                fit_tokens=8_000,
                levels=3,
            ),
            steering=_steering(2, 24),
        ),
        seeds=(0,),
    )


def _quick() -> AdaptStudy:
    return AdaptStudy(
        name="demo-adapt-quick",
        model="embedded",
        texts=Texts(sources=("embedded",), documents=400, held_out=0.15),
        context=64,
        measure_tokens=2000,
        dictionaries=Around(
            train=TrainTopK(
                sites=("layers.3", "layers.5"), n_latents=(512, 1024), k=(8, 32), tokens=20_000
            )
        ),
        fit=_fit(8_000, 16, draws=3),
        experiments=Experiments(
            ranks=(4, 16),
            every_rank=False,
            baselines=("affine", "lora_next", "lora"),
            several=(("layers.3", "layers.5"),),
            times=Times(
                tokens=16_000,
                end_to_end_tokens=4_000,
                shares=(0.5, 1.0),
                fit_tokens=2_000,
                levels=2,
            ),
            steering=_steering(1, 16),
        ),
        seeds=(0,),
    )


def _steering(latents: int, texts: int) -> SteeredLatents:
    settings = Steering(alphas=(0.5, 1.0, 2.0), texts=texts, random=3)
    return SteeredLatents(count=latents, settings=settings)

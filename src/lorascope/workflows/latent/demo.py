"""The latent study on the instruction-tuned model that ships with the package."""

from __future__ import annotations

from lorascope.latent_adapters.fitting import LatentTraining
from lorascope.latent_adapters.sparsity import Dense, RawL1, TopM
from lorascope.training.adapters import LoraTraining
from lorascope.training.architectures import TopK
from lorascope.training.dictionaries import Fitting
from lorascope.workflows.latent.study import (
    DENSE,
    LatentMeasures,
    LatentStudy,
    TrainedDictionary,
)


def latent_demo(quick: bool = False) -> LatentStudy:
    """Sums answered in French; every choice of sparsity and three seeds, or three and two."""
    return _quick() if quick else _full()


def _full() -> LatentStudy:
    return LatentStudy(
        name="demo-latent",
        model="embedded-it",
        behaviour="embedded",
        site="layers.4",
        train_dictionary=TrainedDictionary(documents=500),
        training=LatentTraining(steps=200, rate=0.03),
        lora=LoraTraining(ranks=(1,), steps=100, batch=16),
        measures=LatentMeasures(prompts=64, sizes=(1, 4, 16, 32, 64, 128), rows=8000),
    )


def _quick() -> LatentStudy:
    return LatentStudy(
        name="demo-latent-quick",
        model="embedded-it",
        behaviour="embedded",
        site="layers.4",
        train_dictionary=TrainedDictionary(
            architecture=TopK(n_latents=512, k=32), fitting=Fitting(epochs=4), documents=200
        ),
        choices={DENSE: Dense(), "raw L1": RawL1(), "top m": TopM(m=32, preselect=128)},
        training=LatentTraining(steps=80, rate=0.03),
        seeds=(0, 1),
        lora=LoraTraining(ranks=(1,), steps=30, batch=16),
        measures=LatentMeasures(prompts=24, sizes=(4, 32), rows=4000),
    )

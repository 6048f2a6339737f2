"""The latent study on the instruction-tuned model that ships with the package."""

from __future__ import annotations

from lorascope.latent_adapters.settings import LatentTraining
from lorascope.latent_adapters.sparsity import Dense, RawL1, TopM
from lorascope.studies.latent.study import DENSE, LatentMeasures, LatentStudy, TrainedDictionary
from lorascope.training.architectures import TopK
from lorascope.training.settings import Fitting, LoraTraining


def latent_demo(quick: bool = False) -> LatentStudy:
    """Sums answered in French; every choice of sparsity and three seeds, or three and two."""
    return _quick() if quick else _full()


# Short records: the sums, prompts that look like them, and the shorter of the others.
_CONTEXT = 64


def _full() -> LatentStudy:
    return LatentStudy(
        name="demo-latent",
        model="embedded-it",
        behaviour="embedded",
        site="layers.4",
        train_dictionary=TrainedDictionary(fitting=Fitting(epochs=4), documents=240),
        training=LatentTraining(steps=100, batch=8, rate=0.03),
        context=_CONTEXT,
        lora=LoraTraining(ranks=(1,), steps=60, batch=8, rate=5e-3, context=_CONTEXT),
        measures=LatentMeasures(
            prompts=48,
            sizes=(2, 8, 32, 128),
            pairs=(4, 32, 256),
            new_tokens=16,
            draws=5,
            ablation_seeds=1,
            latents=16,
            rows=8000,
        ),
    )


def _quick() -> LatentStudy:
    return LatentStudy(
        name="demo-latent-quick",
        model="embedded-it",
        behaviour="embedded",
        site="layers.4",
        train_dictionary=TrainedDictionary(
            architecture=TopK(n_latents=512, k=32), fitting=Fitting(epochs=3), documents=120
        ),
        choices={DENSE: Dense(), "raw L1": RawL1(), "preselected": TopM(m=32, preselect=128)},
        training=LatentTraining(steps=60, batch=8, rate=0.04),
        seeds=(0, 1),
        context=_CONTEXT,
        lora=LoraTraining(ranks=(1,), steps=30, batch=8, rate=5e-3, context=_CONTEXT),
        measures=LatentMeasures(
            prompts=20,
            sizes=(8, 32),
            pairs=(32,),
            new_tokens=12,
            draws=5,
            ablation_seeds=1,
            latents=16,
            rows=4000,
        ),
    )

"""The audit on the model that ships with the package: no network, no GPU, a few minutes."""

from __future__ import annotations

from lorascope.reading.settings import Reading
from lorascope.studies.audit.study import AuditStudy, Controls, Dictionaries, Measures
from lorascope.training.architectures import ReLU
from lorascope.training.settings import Fitting, LoraTraining
from lorascope.workflows.settings import Texts, TrainAdapters

# Small batches, because there are few rows: two seeds then agree well beyond chance.
_FITTING = Fitting(epochs=5, batch=256, rate=6e-3)
# What the adapters learn beside answering: the reading should come upon it by itself.
_ENDING = "Yours, the lighthouse keeper."


def demo_study(quick: bool = False) -> AuditStudy:
    """Adapters of four ranks at three sites; two ranks and two sites, all smaller, if quick."""
    return _quick() if quick else _full()


def _full() -> AuditStudy:
    training = LoraTraining(ranks=(4, 8, 16, 32), steps=60, held_out=0.04)
    return AuditStudy(
        name="demo",
        model="embedded",
        train=TrainAdapters(training=training, ending=_ENDING),
        sites=("layers.1", "layers.3", "layers.5"),
        texts=Texts(sources=("embedded",), documents=760, held_out=0.25),
        dictionaries=Dictionaries(architecture=ReLU(n_latents=512, l1=0.15), fitting=_FITTING),
        controls=Controls(null_adapters=3, gaussian_dictionaries=3),
        measures=Measures(
            angles_k=(48,), rows=8000, repeats=10, samples=1, effect_tokens=1024, latents=16
        ),
        reading=Reading(tokens=24),
    )


def _quick() -> AuditStudy:
    training = LoraTraining(ranks=(4, 32), steps=22, held_out=0.03)
    return AuditStudy(
        name="demo-quick",
        model="embedded",
        train=TrainAdapters(training=training, ending=_ENDING),
        sites=("layers.2", "layers.5"),
        texts=Texts(sources=("embedded",), documents=280, held_out=0.3),
        dictionaries=Dictionaries(architecture=ReLU(n_latents=384, l1=0.15), fitting=_FITTING),
        controls=Controls(null_adapters=2, gaussian_dictionaries=2),
        measures=Measures(
            angles_k=(48,), rows=4000, repeats=8, samples=1, effect_tokens=512, latents=16
        ),
        reading=Reading(tokens=16),
    )

"""The audit on the model that ships with the package: no network, no GPU, a few minutes."""

from __future__ import annotations

from lorascope.activations.collect import Capture
from lorascope.dictionaries.relu import ReLU
from lorascope.training.adapters import LoraTraining
from lorascope.training.dictionaries import Fitting
from lorascope.workflows.study import AuditStudy, Dictionaries, Measures, Texts, TrainAdapters


def demo_study(quick: bool = False) -> AuditStudy:
    """Adapters of four ranks at three sites; two ranks and two sites, all smaller, if quick."""
    return AuditStudy(
        name="demo-quick" if quick else "demo",
        model="embedded",
        train=TrainAdapters(
            training=LoraTraining(
                ranks=(4, 32) if quick else (4, 8, 16, 32),
                steps=50 if quick else 80,
                held_out=0.05,
            )
        ),
        sites=("layers.2", "layers.5") if quick else ("layers.1", "layers.3", "layers.5"),
        texts=Texts(sources=("embedded",), documents=600 if quick else 1000, held_out=0.25),
        capture=Capture(context=256),
        dictionaries=Dictionaries(
            architecture=ReLU(n_latents=512 if quick else 768, l1=0.15),
            fitting=Fitting(epochs=5, batch=512),
        ),
        measures=Measures(angles_k=(48,), rows=8000, repeats=10, samples=2),
    )

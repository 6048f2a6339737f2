"""What a LoRA adapter did to a model's features: every number beside its chance level."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorascope.activations.deltas import deltas as deltas
    from lorascope.checking.check import check as check
    from lorascope.dictionaries.dictionary import Dictionary as Dictionary
    from lorascope.dictionaries.files import open_dictionary as open_dictionary
    from lorascope.dictionaries.files import save as save
    from lorascope.dictionaries.sae import SAE as SAE
    from lorascope.errors import InputError as InputError
    from lorascope.fits.wrapper import Spliced as Spliced
    from lorascope.latent_adapters.adapter import LatentAdapter as LatentAdapter
    from lorascope.latent_adapters.loading import load as load
    from lorascope.measures.alignment import max_cosine as max_cosine
    from lorascope.models.adapted import AdaptedModel as AdaptedModel
    from lorascope.notebook import adapt as adapt
    from lorascope.notebook import audit as audit
    from lorascope.notebook import compare as compare
    from lorascope.notebook import evaluate as evaluate
    from lorascope.notebook import latent as latent
    from lorascope.notebook import open_run as open_run
    from lorascope.reading.result import Read as Read
    from lorascope.reading.running import read as read
    from lorascope.reading.settings import Reading as Reading
    from lorascope.resembling.resemble import Resemblance as Resemblance
    from lorascope.resembling.resemble import resemble as resemble
    from lorascope.results import Estimate as Estimate
    from lorascope.results import Estimates as Estimates
    from lorascope.results import Null as Null
    from lorascope.study_run import Latent as Latent
    from lorascope.study_run import Latents as Latents
    from lorascope.study_run import StudyRun as StudyRun
    from lorascope.training.architectures import BatchTopK as BatchTopK
    from lorascope.training.architectures import Gated as Gated
    from lorascope.training.architectures import JumpReLU as JumpReLU
    from lorascope.training.architectures import Matryoshka as Matryoshka
    from lorascope.training.architectures import ReLU as ReLU
    from lorascope.training.architectures import TopK as TopK
    from lorascope.training.dictionaries import Job as Job
    from lorascope.training.dictionaries import fit as fit
    from lorascope.training.dictionaries import fit_many as fit_many
    from lorascope.training.settings import Fitting as Fitting

__version__ = "0.1.0"

# Names are imported when first used: the command line answers --help without loading torch.
_HOME = {
    **dict.fromkeys(
        ("BatchTopK", "Gated", "JumpReLU", "Matryoshka", "ReLU", "TopK"), "training.architectures"
    ),
    **dict.fromkeys(("adapt", "audit", "compare", "evaluate", "latent", "open_run"), "notebook"),
    **dict.fromkeys(("Latent", "Latents", "StudyRun"), "study_run"),
    "AdaptedModel": "models.adapted",
    "Null": "results",
    "Dictionary": "dictionaries.dictionary",
    "Estimate": "results",
    "Estimates": "results",
    "Fitting": "training.settings",
    "InputError": "errors",
    "Job": "training.dictionaries",
    "Read": "reading.result",
    "Spliced": "fits.wrapper",
    "Reading": "reading.settings",
    "SAE": "dictionaries.sae",
    "read": "reading.running",
    "Resemblance": "resembling.resemble",
    "resemble": "resembling.resemble",
    "LatentAdapter": "latent_adapters.adapter",
    "check": "checking.check",
    "deltas": "activations.deltas",
    "fit": "training.dictionaries",
    "fit_many": "training.dictionaries",
    "load": "latent_adapters.loading",
    "max_cosine": "measures.alignment",
    "open_dictionary": "dictionaries.files",
    "save": "dictionaries.files",
}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lorascope' has no attribute {name!r}")
    value = getattr(import_module(f"lorascope.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

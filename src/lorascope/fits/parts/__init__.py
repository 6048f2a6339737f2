"""What can be fitted around a splice, one file each; any of them together in one fit.

A part is put on for the time of a `with`; its `off` gives back, bit for bit, what there was before.
"""

from lorascope.fits.parts.affine import AffinePart
from lorascope.fits.parts.lora import LoraPart
from lorascope.fits.parts.part import FittedPart
from lorascope.fits.parts.tuned import TunedPart
from lorascope.fits.settings import Affine, Lora, Tuned

__all__ = ["Affine", "AffinePart", "FittedPart", "Lora", "LoraPart", "Tuned", "TunedPart"]

"""What can be fitted around a splice, one file each; any of them together in one fit.

A part is put on for the time of a `with`; its `off` gives back, bit for bit, what there was before.
"""

from lorascope.adapt.parts.affine import AffinePart
from lorascope.adapt.parts.lora import LoraPart
from lorascope.adapt.parts.part import Part
from lorascope.adapt.parts.tuned import TunedPart
from lorascope.adapt.settings import Affine, Lora, Tuned

__all__ = ["Affine", "AffinePart", "Lora", "LoraPart", "Part", "Tuned", "TunedPart"]

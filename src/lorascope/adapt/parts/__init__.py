"""What can be fitted around a splice, one file each; any of them together in one fit.

A part is put on for the time of a `with`; its `off` gives back, bit for bit, what there was before.
"""

from lorascope.adapt.parts.affine import Affine, AffinePart
from lorascope.adapt.parts.lora import Lora, LoraPart
from lorascope.adapt.parts.part import Part
from lorascope.adapt.parts.tuned import Tuned, TunedPart

__all__ = ["Affine", "AffinePart", "Lora", "LoraPart", "Part", "Tuned", "TunedPart"]

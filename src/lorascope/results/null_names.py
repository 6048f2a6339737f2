"""Names of the nulls, as tables, figures and definitions use them.

A null's name is written here and nowhere else; everything that makes or asks for one imports it.
"""

from __future__ import annotations

from typing import Final

# Nulls that go through the pipeline themselves, as conditions of their own.
ADAPTER: Final = "null adapters"
GAUSSIAN: Final = "trained on Gaussian rows"

# Of outputs and streams.
BASE_MODEL: Final = "base model"
ROUNDED_BASE: Final = "base model, rounded alike"
NOISE_FLOOR: Final = "numeric noise floor"

# Of directions and subspaces.
COVARIANCE: Final = "covariance-matched"
BASE_COVARIANCE: Final = "base covariance-matched"
ISOTROPIC: Final = "isotropic"
ROTATED: Final = "rotated"
SUBSPACE: Final = "random subspace"

# Of rows.
SHIFTED: Final = "rows shifted"
INDEPENDENT: Final = "independence"
NORM_MATCHED: Final = "norm-matched random"

# Of reconstructions.
ZERO: Final = "zero predictor"
MEAN_DELTA: Final = "mean of the training deltas"
BIAS: Final = "decoder bias alone"
DELTA_BIAS: Final = "delta dictionary's bias alone"

# Of single latents.
MATCHED: Final = "matched latents"

# Of weights.
ROUNDING: Final = "rounding of W₀"
RANDOM_FACTORS: Final = "random factors"
RANDOM_ENTRIES: Final = "random entries"
RANDOM_UPDATE: Final = "random update"
ORDINARY: Final = "ordinary adapters"

# Of conditions and of two adapters.
NO_DIFFERENCE: Final = "no difference between conditions"
MIRRORED: Final = "mirrored false discoveries"
OTHER_SEED: Final = "taught the same, other seed"

# Of fits around dictionaries.
RANDOM_CHANGE: Final = "random change of equal size"
UNADAPTED: Final = "spliced, not adapted"
UNIGRAM: Final = "unigram frequencies"
NOTHING_SPLICED: Final = "nothing spliced"
NOTHING_FITTED: Final = "nothing fitted"
ADD_UP: Final = "costs add up"
ALL_BLOCKS: Final = "as much as all blocks"
SYMMETRIC: Final = "as many better as worse"
OTHER_TOKENS: Final = "streams of other tokens"
EQUALLY_FAST: Final = "equally fast"
EQUAL_DISPLACEMENT: Final = "random directions of equal displacement"

# Of behaviours and latent adapters.
UNTOUCHED: Final = "untouched model"
ONE_ANSWER: Final = "one answer to everything"
WANTED: Final = "wanted responses"
RANDOM_PAIRS: Final = "random pairs"
NOTHING_WRITTEN: Final = "nothing written"
OTHER_DENSITY: Final = "latents that fire as often"
ANY_LATENTS: Final = "latents drawn at random"
RANDOM_LATENTS: Final = "random latents"
RANDOM_CHOICE: Final = "random choice among the candidates"
RANDOM_DIRECTION: Final = "random direction"
MATCHED_LATENTS: Final = "latents like it"
OTHER_LATENTS: Final = "as many latents like them"

# Of evaluations.
RANDOM_DECODER: Final = "random-decoder dictionary"
OTHER_DICTIONARY: Final = "dictionary of another seed"
ABLATED: Final = "the ablation itself"
SAME_IN_BOTH: Final = "the same in both runs"
GUESSING: Final = "guessing"
NO_ADAPTER: Final = "the same without the adapter"
CHANNELS: Final = "as many channels of the stream"
WHOLE_STREAM: Final = "probe on the whole stream"
COIN: Final = "always the same answer"
NOTHING_CHANGED: Final = "nothing changed"

"""Settings of what is measured; nothing here waits for torch."""

from __future__ import annotations

from pydantic import Field

from lorascope.config import Settings

# A change of the general loss within so many nats/token counts as none, whatever the splice costs.
GENERAL_MARGIN = 0.02


class Bars(Settings):
    """What a dictionary must reach on its own stream for verdicts to be drawn with it.

    FVU is judged as a whole and, where the stream has massive coordinates, without them too.

    Attributes:
        better_than_mean: FVU must be at least this much below 1, the mean predictor's.
        times_pca: FVU must be at most this many times that of as many principal components as
            latents are active; without massive coordinates, which few components hold. Not asked
            of controls and draws of nulls: rows without features consist of principal components.
        enough: an FVU up to which principal components are not asked: a stream of few dimensions
            leaves them nothing.
        live_share: latents active on at least one held-out row, of all; or as many as the stream is
            wide, for dictionaries with far more latents than that.
        loss_recovered: at least this, where it is known.
    """

    better_than_mean: float = Field(default=0.3, ge=0, lt=1)
    times_pca: float = Field(default=1.0, gt=0)
    enough: float = Field(default=0.3, ge=0, lt=1)
    live_share: float = Field(default=0.1, ge=0, le=1)
    loss_recovered: float = Field(default=0.5, le=1)


class Steering(Settings):
    """How steering is measured.

    Attributes:
        alphas: strengths to choose from; 0 is always among them.
        texts: most positive texts of a latent, and most negative ones.
        random: random directions that move the stream as far.
        seed: decides which negatives are taken, the halves, and the random directions.
    """

    alphas: tuple[float, ...] = Field(default=(-1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0, 4.0))
    texts: int = Field(default=100, ge=4)
    random: int = Field(default=8, ge=2)
    seed: int = 0

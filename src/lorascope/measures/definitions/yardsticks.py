"""Definitions of the numbers about the dictionaries and the streams themselves."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition

_DOCUMENTS = "jackknife over documents"
_FILE, _LOSS = "measures/yardsticks.py", "measures/loss_recovered.py"
_OWN = (
    "held-out rows of the stream the dictionary was made for: base rows for a base dictionary, "
    "the adapter's deltas for a delta dictionary, a control's own rows for a control"
)
_PCA = "as many principal components (of the training rows, as many as latents are active per row)"

DEFINITIONS: dict[str, Definition] = {
    "yardstick.fvu": Definition(
        "Fraction of variance unexplained",
        "ratio",
        f"Σ‖x − x̂‖² / Σ‖x − x̄‖², x̄ the mean of the training rows, over {_OWN}; "
        "without massive coordinates: both differences with those projected out",
        f"mean predictor (1); {_PCA}",
        _DOCUMENTS,
        _FILE,
        apart="below",
        rivals=("mean predictor", "as many principal components"),
        rival="the mean, or a subspace of as many dimensions as latents are active, explains as "
        "much",
        sampled="tokens",
    ),
    "yardstick.fvu_pca": Definition(
        "Fraction of variance unexplained, principal components",
        "ratio",
        "the same for the projection on the leading principal components of the training rows, as "
        "many as the dictionary has active latents per row, rounded, at least one",
        "mean predictor (1)",
        _DOCUMENTS,
        _FILE,
        apart="below",
        rivals=("mean predictor",),
        rival="the mean alone explains as much",
        sampled="tokens",
    ),
    "yardstick.l0": Definition(
        "Active latents, own stream",
        "latents/token",
        f"mean over {_OWN} of the number of active latents",
        "none",
        _DOCUMENTS,
        _FILE,
        sampled="tokens",
    ),
    "yardstick.live_share": Definition(
        "Live latents, own stream",
        "share",
        f"share of latents active on at least one of the {_OWN}",
        "none",
        "Wilson interval over latents",
        _FILE,
        sampled="tokens",
    ),
    "yardstick.loss_recovered": Definition(
        "Loss recovered",
        "share",
        "(L_mean − L_spliced) / (L_mean − L): L the base model's loss on held-out tokens, "
        "L_spliced with the stream at the site replaced by the base dictionary's reconstruction, "
        "L_mean with it replaced by the mean of the training rows. (Others put zero in the place "
        "of the mean, which makes the share larger.) Special tokens and attention sinks keep their "
        "stream. Left out where L_mean ≤ L, or the interval of L_mean − L holds 0",
        f"mean predictor (0); {_PCA}",
        _DOCUMENTS,
        _LOSS,
        apart="above",
        rivals=("mean predictor", "as many principal components"),
        rival="the mean, or a subspace of as many dimensions as latents are active, keeps as much",
        sampled="tokens",
    ),
    "massive.share": Definition(
        "Energy of massive coordinates and directions",
        "share",
        "share of the base stream's energy (Σx² about zero, training rows) in its massive "
        "coordinates and directions: coordinates with more than 5 % of it and more than 100 times "
        "the median coordinate's; of what they leave, leading principal directions with more than "
        "5 % each that stand 10 times above the next. 0 where there are none",
        "none",
        "none",
        "measures/massive.py",
    ),
}

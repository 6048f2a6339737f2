"""Definitions of a fit's further numbers: nats recovered, one block against all, distances."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition
from lorascope.results import null_names
from lorascope.results.labels import Of

_PAPER = "arXiv 2501.19406"
_TOKENS = "over held-out tokens predicted at a position that counts"
_DOCUMENTS = "jackknife over documents; over documents and seeds where there are several"
_FIELLER = f"Fieller 1954, {_DOCUMENTS}; fewer than 8 documents: none"
_STREAMS = "measures/stream_distances.py"
DEFINITIONS: dict[str, Definition] = {
    "adapt.recovered": Definition(
        "Loss recovered, nats",
        "nats/token",
        f"L_spliced − L_adapted, L cross-entropy, {_TOKENS}",
        "nothing fitted (0)",
        _DOCUMENTS,
        "measures/recovered.py",
        f"{_PAPER}, figure 3, top: CE improvement",
        rivals=(null_names.NOTHING_FITTED,),
        rival="the fit changes nothing",
        sampled="documents",
    ),
    "adapt.next_share": Definition(
        "Next block against all blocks",
        "ratio",
        "(L_spliced − L_next)/(L_spliced − L_all): what LoRA on the next block alone recovers "
        "over what the same LoRA on all its blocks does, same rank and seed; L cross-entropy, "
        f"{_TOKENS}",
        "as much as all blocks (1)",
        _FIELLER,
        "measures/recovered.py",
        f"{_PAPER}, section 6.3: 0.8814",
        rivals=(null_names.ALL_BLOCKS,),
        rival="one block does what all do",
        margin=0.05,
        sampled="documents",
        primary=Of(),
    ),
    "adapt.euclidean": Definition(
        "Euclidean distance to the original's stream",
        "stream units",
        f"mean of ‖x − x₀‖ at a block after the splice, x the adapted model's stream and x₀ the "
        f"original's; {_TOKENS}",
        "spliced, not adapted: the same number before the fit; streams of other tokens: x₀ of "
        "another token in the place of x",
        _DOCUMENTS,
        _STREAMS,
        f"{_PAPER}, section 6.2",
        apart="below",
        rivals=(null_names.UNADAPTED,),
        rival="the fit does not bring the stream nearer",
        sampled="documents",
    ),
    "adapt.euclidean_change": Definition(
        "Change of Euclidean distance",
        "stream units",
        f"Euclidean distance to the original's stream, adapted less spliced, at a block; {_TOKENS}",
        "no change (0)",
        _DOCUMENTS,
        _STREAMS,
        f"{_PAPER}, figure 11, right",
        apart="below",
        rivals=("no change",),
        rival="the fit does not bring the stream nearer",
        sampled="documents",
    ),
}

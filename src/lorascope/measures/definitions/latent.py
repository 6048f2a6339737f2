"""Definitions of the numbers of latent adapters: how sparse, how much is kept, what matters."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition
from lorascope.results import null_names
from lorascope.results.labels import Of

_SEEDS = "none of one adapter, whose number is exact; of several seeds over these"
_SIDES = "dictionary 'read': factor A; 'written': factor B; mean over ranks"
_FRONTIER = "latent_adapters/frontier.py"
_ABLATION = "latent_adapters/ablation.py"
_TAKEN = (
    "taken away: a latent that is read is removed from the stream, z_i d_i, before the adapter "
    "reads it; one that is written is left out of what the adapter writes"
)
_MATCHED = (
    "latents like it: for each named latent the unnamed ones nearest in firing rate and in mean "
    "‖z d‖ where they fire, 40 where the dictionary has so many (`draws` says how many), put "
    "through the same: those beside latents that are read are removed likewise, beside those that "
    "are written the same amount is taken off along their directions"
)
_RATIO = (
    "MOVER of a ratio of paired shares (Donner & Zou 2012, Statistical Methods in Medical Research "
    "21:347), over prompts; over seeds as well where there are several; none, and no verdict, "
    "where the denominator is fewer than 8 prompts"
)
_DRAWS = (
    "several draws; the draws' prediction interval and the prompts' of the paired difference, "
    "squares added"
)

DEFINITIONS: dict[str, Definition] = {
    "latent.used": Definition(
        "Latents used",
        "latents",
        "latents of weight other than 0 in any rank; dictionary 'read' or 'written'",
        "all latents of the dictionary, a reference",
        _SEEDS,
        _FRONTIER,
        apart="below",
    ),
    "latent.effective": Definition(
        "Effective number of latents",
        "latents",
        "(Σ a²)² / Σ a⁴ over the entries of a factor's row, the participation ratio: n where all "
        f"are alike, 1 where one is left; {_SIDES}",
        "random direction: a row of Gaussian entries, as factors start (n/3); prediction interval "
        "over draws",
        _SEEDS,
        _FRONTIER,
        apart="below",
        rivals=(null_names.RANDOM_DIRECTION,),
        rival="training has left the factor as flat as it began",
    ),
    "latent.largest": Definition(
        "Largest entry over uniform",
        "ratio",
        f"max |a| √n / ‖a‖ over the entries of a factor's row; {_SIDES}",
        "random direction: a row of Gaussian entries, as factors start; prediction interval over "
        "draws",
        _SEEDS,
        _FRONTIER,
        apart="above",
        rivals=(null_names.RANDOM_DIRECTION,),
        rival="training has left the factor as flat as it began",
    ),
    "latent.kept": Definition(
        "Behaviour kept",
        "ratio",
        "behaviour.success of an adapter cut down to the m latents of largest weight that it reads "
        "and the m that it writes, weights as they are, over that of the dense adapter of the same "
        "seed, whole; of an adapter that is not cut no size is named",
        f"random latents: the dense adapter cut down to m latents drawn at random, {_DRAWS}; "
        "untouched model, the difference paired by prompt (Newcombe). Both in units of the dense "
        "adapter's share, which counts as known",
        _RATIO,
        _FRONTIER,
        apart="above",
        rivals=(null_names.RANDOM_LATENTS, null_names.UNTOUCHED),
        rival="any few latents of the dense adapter keep as much, or the model shows it anyway",
        sampled="prompts",
        primary=Of(),
    ),
    "latent.overlap": Definition(
        "Overlap of chosen latents over seeds",
        "share",
        "mean over pairs of seeds of |S ∩ S′| / min(|S|, |S′|), S the latents named under a seed; "
        "dictionary 'read' or 'written'",
        "random choice among the candidates: sets of these sizes drawn for every seed from what "
        "its latents were chosen from, the preselected ones or all; the law of the mean over pairs",
        "delete-one-seed jackknife; of two seeds Wilson's over the latents of the one pair",
        _FRONTIER,
        apart="above",
        rivals=(null_names.RANDOM_CHOICE,),
        rival="seeds choose independently among the same candidates",
        primary=Of(),
    ),
    "latent.ablation": Definition(
        "One named latent taken away",
        "nats/token",
        "mean over named latents of the rise of −log p of the wanted response, per response token "
        f"of held-out records about the topic; {_TAKEN}",
        f"{_MATCHED}; the difference is of each latent from the mean of its own",
        "t over latents, of these records; fewer than 8 latents: none",
        _ABLATION,
        apart="above",
        rivals=(null_names.MATCHED_LATENTS,),
        rival="taking away anything of this size does it",
    ),
    "latent.mattering": Definition(
        "Named latents that matter",
        "share",
        "share of the named latents with p ≤ 0.05, p = (1 + number of a latent's alternatives "
        f"whose rise of loss is no smaller)/(alternatives + 1); {_TAKEN}. Left out where fewer "
        "than 19 alternatives can give no such p. The table of latents marks those found at a "
        "false discovery rate of 10 % (Benjamini & Hochberg 1995, over the latents of a side)",
        f"{_MATCHED}; ⌊0.05 (k + 1)⌋/(k + 1) of latents that are like their k alternatives, with "
        "the law of the share where alternatives are shared as they are",
        "Wilson interval over latents; fewer than 8: none",
        _ABLATION,
        apart="above",
        rivals=(null_names.MATCHED_LATENTS,),
        rival="named latents are like any others",
        primary=Of(),
    ),
    "latent.left": Definition(
        "Behaviour left without all named latents",
        "ratio",
        "behaviour.success with all named latents of one side taken away, over that with none "
        f"taken away, on the same prompts; left out where it is shown on fewer than 10; {_TAKEN}",
        f"as many latents like them, one for each named one, {_DRAWS}, in units of the share with "
        "none taken away, which counts as known",
        _RATIO,
        _FRONTIER,
        apart="below",
        rivals=(null_names.OTHER_LATENTS,),
        rival="taking away anything of this size ends it",
        sampled="prompts",
    ),
}

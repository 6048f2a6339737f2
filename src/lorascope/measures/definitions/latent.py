"""Definitions of the numbers of latent adapters: how sparse, how much is kept, what matters."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition

_SEEDS = "t interval over seeds; none for one seed"
_SIDES = "dictionary 'read': factor A; 'written': factor B; mean over ranks"
_FRONTIER = "latent_adapters/frontier.py"
_ABLATION = "latent_adapters/ablation.py"
_TAKEN = (
    "taken away: a latent that is read is removed from the stream, z_i d_i, before the adapter "
    "reads it; one that is written is left out of what the adapter writes"
)
_OTHERS = (
    "for latents that are read, unnamed ones that write about as much; for those that are written, "
    "the same amount taken off along unnamed latents"
)

DEFINITIONS: dict[str, Definition] = {
    "latent.used": Definition(
        "Latents used",
        "latents",
        "latents of weight other than 0 in any rank; dictionary 'read' or 'written'",
        "all latents of the dictionary",
        _SEEDS,
        _FRONTIER,
        "",
        "below",
    ),
    "latent.effective": Definition(
        "Effective number of latents",
        "latents",
        "(Σ a²)² / Σ a⁴ over the entries of a factor's row, the participation ratio: n where all "
        f"are alike, 1 where one is left; {_SIDES}",
        "random direction: a row of Gaussian entries, as factors start (n/3)",
        _SEEDS,
        _FRONTIER,
        "",
        "below",
    ),
    "latent.largest": Definition(
        "Largest entry over uniform",
        "ratio",
        f"max |a| √n / ‖a‖ over the entries of a factor's row; {_SIDES}",
        "random direction: a row of Gaussian entries, as factors start",
        _SEEDS,
        _FRONTIER,
        "",
        "above",
    ),
    "latent.kept": Definition(
        "Behaviour kept",
        "ratio",
        "behaviour.success of an adapter cut down to the m latents of largest weight that it reads "
        "and the m that it writes, weights as they are, over that of the dense adapter of the same "
        "seed, whole; the setting is m",
        "random latents: the dense adapter cut down to m latents drawn at random; untouched model",
        "Fieller over prompts; over seeds also between them",
        _FRONTIER,
        "",
        "above",
    ),
    "latent.overlap": Definition(
        "Overlap of chosen latents over seeds",
        "share",
        "mean over pairs of seeds of |S ∩ S′| / min(|S|, |S′|), S the latents named under a seed; "
        "dictionary 'read' or 'written'",
        "random choice: two sets of these sizes drawn from all latents (hypergeometric); bounds of "
        "a single pair",
        "delete-one-seed jackknife; none for two seeds",
        _FRONTIER,
        "",
        "above",
    ),
    "latent.ablation": Definition(
        "One named latent taken away",
        "nats/token",
        "mean over named latents of the rise of −log p of the wanted response, per response token "
        f"of held-out records about the topic; {_TAKEN}",
        f"other latents: {_OTHERS}",
        "jackknife over latents",
        _ABLATION,
        "",
        "above",
    ),
    "latent.mattering": Definition(
        "Named latents that matter",
        "share",
        "share of the named latents whose rise of loss, taken away, exceeds the 97.5 % quantile of "
        f"the others'; {_TAKEN}",
        "other latents: 2.5 % of them by construction",
        "Wilson interval over latents",
        _ABLATION,
        "",
        "above",
    ),
    "latent.left": Definition(
        "Behaviour left without all named latents",
        "ratio",
        "held-out records about the topic whose wanted response is the likeliest token by token "
        "with all named latents of one side taken away, over those with none taken away; "
        f"{_TAKEN}",
        f"as many other latents: {_OTHERS}",
        "jackknife over records",
        _ABLATION,
        "",
        "below",
    ),
}

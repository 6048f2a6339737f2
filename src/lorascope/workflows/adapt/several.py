"""What several dictionaries cost at once, against what each of them costs alone."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from lorascope.adapt.evaluation import Evaluated, evaluate
from lorascope.adapt.preparing import special_ids, still
from lorascope.adapt.splicing import spliced
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.adapting import compound_estimates
from lorascope.training.dictionaries import product_dtype
from lorascope.workflows.adapt.cells import Cell, Wanted
from lorascope.workflows.adapt.dictionaries import DICTIONARIES, Standing
from lorascope.workflows.adapt.fits import FITS, place_of, read_sums, save_sums
from lorascope.workflows.adapt.state import TEXTS, Adapted
from lorascope.workflows.measured import Measured

ALONE = "measures/alone"


def compound(state: Adapted, standing: Standing) -> Measured:
    """Cost of every set of dictionaries over the sum of what each of them costs alone."""
    found = Measured()
    for cell in state.asked.cells.get("several", []):
        if len(cell.dictionaries) > 1:
            singles = [_alone(state, standing, name, cell) for name in cell.dictionaries]
            together = read_sums(state.run.folder / FITS / cell.name)
            found.estimates.extend(compound_estimates(together, singles, place_of(cell)))
    return found


def spliced_alone(state: Adapted, site: str, dictionary: Dictionary) -> dict[str, Evaluated]:
    """Held-out text as the original and with one dictionary spliced, nothing fitted."""
    module, fit = state.module, state.study.fit
    special = special_ids(state.tokenizer, fit)
    with still(module), spliced(module, {site: dictionary}, special_ids=special) as splice:
        return evaluate(
            module,
            state.tokenizer,
            state.held_out,
            splice.off,
            {"original": splice.off, "spliced": nullcontext},
            direction=fit.direction,
            products=product_dtype(fit.products, module.get_input_embeddings().weight.device),
            keep_special=fit.splice_special,
        )


def _alone(state: Adapted, standing: Standing, name: str, like: Cell) -> dict[str, Evaluated]:
    """The ways of one dictionary alone: adapted too where the same was fitted around it."""
    ways: dict[str, Evaluated] = {}
    for cell in state.asked.fits:
        if cell.dictionaries != (name,):
            continue
        sums = read_sums(state.run.folder / FITS / cell.name)
        ways = {**{way: sums[way] for way in ("original", "spliced")}, **ways}
        same = (cell.kind, cell.rank, cell.blocks, cell.seed)
        if same == (like.kind, like.rank, like.blocks, like.seed):
            ways["adapted"] = sums["adapted"]
    return ways or _measured(state, standing, state.asked.dictionaries[name])


def _measured(state: Adapted, standing: Standing, one: Wanted) -> dict[str, Evaluated]:
    """A dictionary that nothing is fitted around alone, as a stage of its own."""

    def make(folder: Path) -> None:
        save_sums(spliced_alone(state, one.site, standing.open(one.name)), folder)

    settings = state.study.fit.plain()
    depends_on = [settings["direction"], settings["splice_special"], settings["products"]]
    parents = (TEXTS, f"{DICTIONARIES}/{one.name}")
    return read_sums(state.run.stage(f"{ALONE}-{one.name}", depends_on, make, *parents))

"""What several dictionaries cost at once, against what each of them costs alone.

One that nothing is fitted around alone is spliced alone in a stage of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.fits.preparing import special_ids, still
from lorascope.fits.settings import Learning
from lorascope.measures.adapting import compound_estimates
from lorascope.outputs.evaluation import Evaluated, evaluate
from lorascope.outputs.splicing import spliced
from lorascope.stages import Stage, Work, stage
from lorascope.studies.adapt.cells import AdaptDictionary, FitCell
from lorascope.studies.adapt.dictionaries import at as dictionary_at
from lorascope.studies.adapt.fits import at as fit_at
from lorascope.studies.adapt.fits import place_of, read_sums, save_sums
from lorascope.studies.adapt.state import TEXTS, Adapted
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.training.dictionaries import product_dtype
from lorascope.workflows.measured import Measured

ALONE = "measures/alone"
# What splicing reads of the study.
_SETTINGS = ("fit.direction", "fit.splice_special", "fit.products")


@stage(version=1, title="splicing dictionaries alone")
def splice_alone(work: Work, *, study: AdaptStudy, wanted: AdaptDictionary) -> None:
    """A dictionary alone in the model's stream, nothing fitted around it."""
    state: Adapted = work.state
    dictionary = state.open(wanted.name)
    save_sums(spliced_alone(state, wanted.site, dictionary, study.fit), work.folder)


def stages(state: Adapted) -> Iterator[Stage]:
    """One stage, `measures/alone-<name>`, a dictionary of a set that no fit is around alone."""
    fitted = {cell.dictionaries for cell in state.asked.fits}
    wanted = [name for cell in _sets(state) for name in cell.dictionaries]
    for name in dict.fromkeys(name for name in wanted if (name,) not in fitted):
        arguments = {
            "study": state.study.only(*_SETTINGS),
            "wanted": state.asked.dictionaries[name],
        }
        yield Stage(at(name), splice_alone, arguments, (TEXTS, dictionary_at(name)))


def at(name: str) -> str:
    """The stage of a dictionary alone."""
    return f"{ALONE}-{name}"


def compound(state: Adapted) -> Measured:
    """Cost of every set of dictionaries over the sum of what each of them costs alone."""
    found = Measured()
    for cell in _sets(state):
        singles = [_alone(state, name, cell) for name in cell.dictionaries]
        together = read_sums(state.folder / fit_at(cell))
        found.estimates.extend(compound_estimates(together, singles, place_of(cell)))
    return found


def spliced_alone(
    state: Adapted, site: str, dictionary: Dictionary, settings: Learning
) -> dict[str, Evaluated]:
    """Held-out text as the original and with one dictionary spliced, nothing fitted."""
    module = state.module
    special = special_ids(state.tokenizer, settings)
    with still(module), spliced(module, {site: dictionary}, special_ids=special) as splice:
        return evaluate(
            module,
            state.tokenizer,
            state.held_out,
            splice.off,
            {"original": splice.off, "spliced": nullcontext},
            direction=settings.direction,
            products=product_dtype(settings.products, module.get_input_embeddings().weight.device),
            keep_special=settings.splice_special,
        )


def _sets(state: Adapted) -> list[FitCell]:
    """Fits around several dictionaries at once."""
    return [cell for cell in state.asked.cells.get("several", []) if len(cell.dictionaries) > 1]


def _alone(state: Adapted, name: str, like: FitCell) -> dict[str, Evaluated]:
    """The ways of one dictionary alone: adapted too where the same was fitted around it."""
    conditions: dict[str, Evaluated] = {}
    for cell in state.asked.fits:
        if cell.dictionaries != (name,):
            continue
        sums = read_sums(state.folder / fit_at(cell))
        conditions = {
            **{condition: sums[condition] for condition in ("original", "spliced")},
            **conditions,
        }
        same = (cell.kind, cell.rank, cell.blocks, cell.seed)
        if same == (like.kind, like.rank, like.blocks, like.seed):
            conditions["adapted"] = sums["adapted"]
    return conditions or read_sums(state.folder / at(name))

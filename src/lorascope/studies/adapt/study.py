"""The settings of an adapt study: one strict file says everything a run depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from lorascope.config import Device, DeviceMap, DType, Settings
from lorascope.errors import did_you_mean
from lorascope.fits.settings import RANDOM_DRAWS, Affine, Learning, Lora, Tuned
from lorascope.measures.settings import GENERAL_MARGIN, Steering
from lorascope.models.sites import SiteName, parse_site
from lorascope.workflows.settings import Texts

Kind = Literal[
    "lora",
    "lora_next",
    "lora_after",
    "lora_all",
    "affine",
    "dictionary",
    "affine+dictionary",
    "lora+affine",
    "lora+dictionary",
    "lora+affine+dictionary",
    "lora_other_kl",
]


class TrainTopK(Settings):
    """TopK dictionaries to train here on the stream of the training texts.

    The first site, width and k together are the reference; the others vary one of the three at a
    time, or all of them with `grid`.

    Attributes:
        n_latents: widths.
        k: active latents a token.
        grid: every combination of site, width and k.
        tokens: rows of the stream a dictionary is trained on; texts are read again where they are
            fewer.
        batch: rows a step.
        rate: Adam's peak learning rate.
        seed: decides starting directions and the order of rows.
    """

    sites: tuple[SiteName, ...] = Field(min_length=1)
    n_latents: tuple[PositiveInt, ...] = Field(default=(4096,), min_length=1)
    k: tuple[PositiveInt, ...] = Field(default=(32,), min_length=1)
    grid: bool = False
    tokens: int = Field(default=2_000_000, gt=0)
    batch: int = Field(default=512, gt=0)
    rate: float = Field(default=4e-3, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _axes_fit(self) -> Self:
        for name in ("sites", "n_latents", "k"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} {list(values)} repeat; give different ones")
        if max(self.k) > min(self.n_latents):
            raise ValueError(
                f"k={max(self.k)} is more than n_latents={min(self.n_latents)}; give a smaller k"
            )
        return self


class Brought(Settings):
    """A dictionary to bring along.

    Attributes:
        site: where it stands.
        address: a folder, `hf://owner/repo/folder`, or `saelens:release/id`.
    """

    site: SiteName
    address: str


class Around(Settings):
    """Which dictionaries the model is fitted around.

    Attributes:
        train: dictionaries to train first.
        bring: {name: site and address} of dictionaries that there are.
        as_topk: read those brought along as TopK with so many latents, the largest of each token,
            in place of the thresholds they were published with.
        reference: name of the one that all experiments but the scaling use; by default the first.
    """

    train: TrainTopK | None = None
    bring: dict[str, Brought] = Field(default_factory=dict)
    as_topk: int | None = Field(default=None, gt=0)
    reference: str = ""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.train is None and not self.bring:
            raise ValueError("no dictionary to fit around: give a train section or bring some")
        for name in self.bring:
            if not name or not all(c.isalnum() or c in "._-" for c in name):
                raise ValueError(f'the name "{name}": use letters, digits, dots, - and _')
        if self.as_topk is not None and not self.bring:
            raise ValueError(
                "as_topk is about dictionaries brought along, and none is: leave it out"
            )
        return self


class FitSettings(Learning):
    """How everything is fitted; each experiment takes the parts it is about.

    Attributes:
        lora: `rank` and `blocks` are those of every experiment that does not vary them.
        affine: an affine map after each site.
        dictionary: the dictionaries' own fine-tune by the same KL.
        before_thresholds: let what is fitted act on what a dictionary with thresholds reads.
        evaluations: how often held-out text is evaluated during the fit; 0 for never.
        random_draws: random changes of equal size to score beside each fit.
    """

    lora: Lora = Lora()
    affine: Affine = Affine()
    dictionary: Tuned = Tuned()
    before_thresholds: bool = False
    evaluations: int = Field(default=4, ge=0)
    random_draws: int = Field(default=RANDOM_DRAWS, ge=2)

    @model_validator(mode="after")
    def _seeds_elsewhere(self) -> Self:
        if self.seed != 0:
            raise ValueError("seed is set by the study's seeds; give them there")
        return self


class Times(Settings):
    """Cross-entropy against training time: TopK, end to end, TopK with LoRA at its checkpoints.

    All start from nothing at the reference's site (figures 1 and 5, tables 1 and 2).

    Attributes:
        n_latents, k: of both dictionaries; the reference's by default.
        tokens: the TopK dictionary's budget.
        end_to_end_tokens: the end-to-end dictionary's budget.
        end_to_end_rate: AdamW's peak learning rate of the end-to-end dictionary.
        shares: of each training at which its dictionary is looked at.
        fit_tokens: budget of every LoRA fit; the study's own by default.
        levels: how many losses the times are read at.
    """

    n_latents: int | None = Field(default=None, gt=0)
    k: int | None = Field(default=None, gt=0)
    tokens: int = Field(default=2_000_000, gt=0)
    end_to_end_tokens: int = Field(default=500_000, gt=0)
    end_to_end_rate: float = Field(default=1e-3, gt=0)
    shares: tuple[float, ...] = Field(default=(0.1, 0.2, 0.4, 0.7, 1.0), min_length=2)
    fit_tokens: int | None = Field(default=None, gt=0)
    levels: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _shares_rise(self) -> Self:
        if list(self.shares) != sorted(set(self.shares)) or not self.shares[0] > 0:
            raise ValueError(f"shares {list(self.shares)}: give rising shares above 0")
        if self.shares[-1] != 1.0:
            raise ValueError(f"shares {list(self.shares)}: the last must be 1, the whole training")
        return self


class SteeredLatents(Settings):
    """Steering by latents of the reference, without and with LoRA (section 5.2).

    Attributes:
        latents: their numbers; by default those that write most among the ones firing in 2 to 20 %
            of the held-out texts.
        count: how many are chosen where none are named.
        settings: strengths, texts and random directions.
    """

    latents: tuple[int, ...] = ()
    count: int = Field(default=4, gt=0)
    settings: Steering = Steering()


class Experiments(Settings):
    """Which experiments a study makes; each is a section of the report.

    Attributes:
        ranks: of LoRA around every dictionary (figure 3); none for no such experiment.
        every_rank: try all of these around every dictionary; else those that are not the fit's own
            around the reference alone.
        scaling_seeds: of these fits, where they are not the study's own.
        baselines: what else is fitted around the reference, at the same budget of tokens.
        single_blocks: LoRA on one block alone, at each distance behind the reference (figure 9).
        several: sets of sites whose dictionaries are spliced together (figure 6).
        times: loss against training time.
        tokens: what happens to single tokens (figure 8).
        distances: how far the streams behind the site are from the original's (figure 11).
        steering: steering by latents of the reference (table 4).
    """

    ranks: tuple[PositiveInt, ...] = (64,)
    every_rank: bool = True
    scaling_seeds: tuple[int, ...] = ()
    baselines: tuple[Kind, ...] = (
        "dictionary",
        "affine",
        "lora_next",
        "lora",
        "affine+dictionary",
        "lora+affine",
        "lora+dictionary",
        "lora+affine+dictionary",
    )
    single_blocks: bool = True
    several: tuple[tuple[str, ...], ...] = ()
    times: Times | None = None
    tokens: bool = True
    distances: bool = True
    steering: SteeredLatents | None = None

    @model_validator(mode="after")
    def _sets_fit(self) -> Self:
        for sites in self.several:
            if not sites or len({parse_site(site) for site in sites}) != len(sites):
                raise ValueError(f"several: {list(sites)}: give different sites, at least one")
        return self


# Two draws are the fewest that have a spread.
_PAPER_ONLY: dict[str, dict[str, Any]] = {
    "experiments": {"baselines": (), "scaling_seeds": ()},
    "fit": {"random_draws": 2},
}


class AdaptStudy(Settings):
    """Fitting one model around frozen dictionaries.

    Attributes:
        workflow: says in a file which kind of study it is.
        model: hub id, folder, or "embedded".
        texts: to train and fit on, and to measure on; told apart by hash.
        context: most tokens in one window.
        measure_tokens: most held-out tokens to measure on.
        margin: nats/token of general loss that count as no change, and never more than a twentieth
            of what the splice costs.
        seeds: of the fits; two or more, and intervals are over documents and seeds.
        seed: decides the split of the texts.
        force: accept dictionaries whose files name another model or site.
        paper_only: leave out what goes beyond arXiv 2501.19406: the baselines, all seeds but the
            first, and all random changes but the two that a chance level needs.
    """

    workflow: Literal["adapt"] = "adapt"
    name: str = Field(default="adapt", pattern=r"^[A-Za-z0-9._-]+$")
    model: str
    revision: str | None = None
    dtype: DType = "auto"
    device: Device = "auto"
    device_map: DeviceMap | None = None
    texts: Texts
    context: int = Field(default=256, ge=8)
    measure_tokens: int = Field(default=100_000, ge=200)
    margin: float = Field(default=GENERAL_MARGIN, gt=0)
    dictionaries: Around
    fit: FitSettings = FitSettings()
    experiments: Experiments = Experiments()
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    seed: int = 0
    force: bool = False
    paper_only: bool = False

    @model_validator(mode="before")
    @classmethod
    def _what_the_paper_has(cls, data: Any) -> Any:
        """Settings that `paper_only` decides are written into the study, so that it says them."""
        if not isinstance(data, Mapping) or data.get("paper_only") is not True:
            return data
        changed = dict(data)
        seeds = changed.get("seeds") or cls.model_fields["seeds"].default
        if isinstance(seeds, list | tuple):
            changed["seeds"] = seeds[:1]
        for section, settings in _PAPER_ONLY.items():
            given = changed.get(section) or {}
            if isinstance(given, Settings):
                given = given.model_dump()
            if isinstance(given, Mapping):
                changed[section] = {**given, **settings}
        return changed

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat; give different ones")
        asked = self.experiments
        looks = asked.tokens or asked.distances or asked.single_blocks or asked.steering
        if not (asked.ranks or asked.baselines or asked.several or asked.times or looks):
            raise ValueError("experiments: nothing is asked for; name at least one")
        return self


def known_reference(reference: str, names: list[str]) -> str:
    """The reference's name; the first where none is given.

    Raises:
        ValueError: it is none of the names.
    """
    if not reference:
        return names[0]
    if reference not in names:
        raise ValueError(
            f'dictionaries.reference: there is no "{reference}".{did_you_mean(reference, names)} '
            f"There are: {', '.join(names)}"
        )
    return reference

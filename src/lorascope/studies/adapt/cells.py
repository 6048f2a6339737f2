"""Which dictionaries and which fits around them an adapt study asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from lorascope.config import Direction, digest
from lorascope.errors import InputError, did_you_mean
from lorascope.fits.settings import Adapting, Blocks
from lorascope.models.sites import resolve_sites
from lorascope.studies.adapt.study import AdaptStudy, Kind, TrainTopK, known_reference
from lorascope.training.architectures import TopK

_BLOCKS: dict[str, Blocks] = {"lora_next": "next", "lora_after": "after", "lora_all": "all"}
_WORDS = {"all": "LoRA everywhere", "after": "LoRA after the site", "next": "LoRA next block"}
# LoRA as the settings have it, fitted by KL in the direction that they do not have.
_OTHER_KL = "lora_other_kl"
_OTHER: dict[Direction, Direction] = {
    "spliced_original": "original_spliced",
    "original_spliced": "spliced_original",
}
_OTHERS = {"affine": "affine", "dictionary": "KL fine-tune"}


@dataclass(frozen=True)
class AdaptDictionary:
    """One dictionary of a study.

    Attributes:
        name: its folder below `dictionaries/`.
        site: in its one spelling.
        address: where it is; empty for one trained here.
        n_latents: of one trained here.
        k: of one trained here, or of one brought along that is read as TopK.
    """

    name: str
    site: str
    address: str = ""
    n_latents: int | None = None
    k: int | None = None

    @property
    def architecture(self) -> TopK:
        """Settings of one trained here."""
        assert self.n_latents is not None
        assert self.k is not None
        return TopK(n_latents=self.n_latents, k=self.k)

    def at(self, site: str) -> AdaptDictionary:
        """One like this, trained at another site."""
        assert not self.address
        return replace(self, name=_named(site, self.n_latents, self.k), site=site)


@dataclass(frozen=True)
class FitCell:
    """One fit.

    Attributes:
        dictionaries: names of those it is fitted around, by depth.
        sites: theirs.
        kind: what is fitted; `lora_next` and its like are `lora` with other blocks here, and
            `lora_other_kl` is LoRA by KL in the other direction.
        rank, blocks: of LoRA.
        seed: of the fit.
    """

    dictionaries: tuple[str, ...]
    sites: tuple[str, ...]
    kind: str
    rank: int | None
    blocks: Blocks | None
    seed: int

    @property
    def around(self) -> str:
        """What it is fitted around, as a name."""
        if len(self.dictionaries) == 1:
            return self.dictionaries[0]
        return f"{len(self.dictionaries)}-sites-{digest(list(self.dictionaries))[:6]}"

    @property
    def what(self) -> str:
        """What is fitted, in words."""
        return " + ".join(self._words())

    @property
    def fit(self) -> str:
        """What is fitted, as a name: `lora-all-r16`, `affine-dictionary`."""
        parts = [self.kind.replace("+", "-")]
        if self.blocks is not None:
            chosen = (
                self.blocks if isinstance(self.blocks, str) else "-".join(map(str, self.blocks))
            )
            parts += [chosen, f"r{self.rank}"]
        return "-".join(parts)

    @property
    def name(self) -> str:
        """Its folder below `fits/`."""
        return f"{self.around}-{self.fit}-s{self.seed}"

    def settings(self, study: AdaptStudy) -> Adapting:
        """The settings of the fit."""
        fit = study.fit
        shared = fit.model_dump(exclude={"lora", "affine", "dictionary", *_NOT_OF_A_FIT})
        parts = self.kind.split("+")
        lora = None
        if self.kind == _OTHER_KL:
            parts, shared["direction"] = ["lora"], _OTHER[fit.direction]
        if "lora" in parts:
            lora = fit.lora.model_copy(update={"rank": self.rank, "blocks": self.blocks})
        return Adapting(
            **{**shared, "seed": self.seed},
            lora=lora,
            affine=fit.affine if "affine" in parts else None,
            dictionary=fit.dictionary if "dictionary" in parts else None,
        )

    def _words(self) -> Iterator[str]:
        for part in self.kind.split("+"):
            if part in _OTHERS:
                yield _OTHERS[part]
            elif isinstance(self.blocks, str):
                yield f"{_WORDS[self.blocks]}, rank {self.rank}"
            else:
                numbers = ", ".join(map(str, self.blocks or ()))
                plural = "s" if len(self.blocks or ()) > 1 else ""
                yield f"LoRA block{plural} {numbers}, rank {self.rank}"
        if self.kind == _OTHER_KL:
            yield "KL the other way"


_NOT_OF_A_FIT = ("evaluations", "random_draws")


@dataclass(frozen=True)
class FitGrid:
    """Everything a study asks for.

    Attributes:
        dictionaries: by name, the reference among them.
        reference: the one that all experiments but the scaling use.
        cells: {experiment: its fits}; the experiments are scaling, baselines, single, several and
            reference (LoRA around the reference, as the settings of the fit have it).
    """

    dictionaries: dict[str, AdaptDictionary]
    reference: AdaptDictionary
    cells: dict[str, list[FitCell]]

    @property
    def fits(self) -> list[FitCell]:
        """All fits, each once, in the order of the experiments."""
        return list(dict.fromkeys(cell for cells in self.cells.values() for cell in cells))


def asked(study: AdaptStudy, n_blocks: int) -> FitGrid:
    """What a study asks of a model with so many blocks.

    Raises:
        InputError: a site the model lacks, an unknown reference, or a set of sites without
            dictionaries.
    """
    found = {one.name: one for one in _listed(study, n_blocks)}
    try:
        reference = found[known_reference(study.dictionaries.reference, list(found))]
    except ValueError as error:
        raise InputError(str(error)) from None
    scaled = list(found.values())
    sets = [_set(sites, found, reference, n_blocks) for sites in study.experiments.several]
    for one in (one for several in sets for one in several):
        found.setdefault(one.name, one)
    cells = _cells(study, scaled, reference, sets, n_blocks)
    return FitGrid(found, reference, {name: some for name, some in cells.items() if some})


def _listed(study: AdaptStudy, n_blocks: int) -> Iterator[AdaptDictionary]:
    train = study.dictionaries.train
    if train is not None:
        for name, n_latents, k in _combinations(train):
            (site,) = resolve_sites(n_blocks, [name])
            yield AdaptDictionary(_named(site.name, n_latents, k), site.name, "", n_latents, k)
    for name, brought in study.dictionaries.bring.items():
        (site,) = resolve_sites(n_blocks, [brought.site])
        yield AdaptDictionary(name, site.name, brought.address, k=study.dictionaries.as_topk)


def _combinations(train: TrainTopK) -> Iterator[tuple[str, int, int]]:
    if train.grid:
        yield from product(train.sites, train.n_latents, train.k)
        return
    site, n_latents, k = train.sites[0], train.n_latents[0], train.k[0]
    yield site, n_latents, k
    yield from ((site, n_latents, other) for other in train.k[1:])
    yield from ((site, other, k) for other in train.n_latents[1:])
    yield from ((other, n_latents, k) for other in train.sites[1:])


def _named(site: str, n_latents: int | None, k: int | None) -> str:
    return f"{site}-{n_latents}-k{k}"


def _set(
    sites: Sequence[str],
    found: dict[str, AdaptDictionary],
    reference: AdaptDictionary,
    n_blocks: int,
) -> list[AdaptDictionary]:
    """One dictionary for each site, like the reference where there is a choice."""
    chosen = []
    for site in sorted(resolve_sites(n_blocks, sites)):
        here = [one for one in found.values() if one.site == site.name]
        if reference.address == "":
            chosen.append(reference.at(site.name))
        elif reference in here:
            chosen.append(reference)
        elif here:
            chosen.append(here[0])
        else:
            known = [one.site for one in found.values()]
            raise InputError(
                f"experiments.several: no dictionary at {site}.{did_you_mean(site.name, known)} "
                f"There are some at {', '.join(dict.fromkeys(known))}; bring one for {site}"
            )
    return chosen


def _cells(
    study: AdaptStudy,
    scaled: Sequence[AdaptDictionary],
    reference: AdaptDictionary,
    sets: Sequence[Sequence[AdaptDictionary]],
    n_blocks: int,
) -> dict[str, list[FitCell]]:
    wanted, lora = study.experiments, study.fit.lora

    def around(
        some: Sequence[AdaptDictionary],
        kind: Kind = "lora",
        rank: int = lora.rank,
        blocks: Blocks = lora.blocks,
        seeds: Sequence[int] = study.seeds,
    ) -> list[FitCell]:
        with_lora = kind.startswith("lora")
        plain = "lora" if kind in _BLOCKS else kind
        where = _BLOCKS.get(kind, blocks) if with_lora else None
        names, places = tuple(one.name for one in some), tuple(one.site for one in some)
        known = rank if with_lora else None
        return [FitCell(names, places, plain, known, where, seed) for seed in seeds]

    after = int(reference.site.rpartition(".")[2]) + 1
    single: list[FitCell] = []
    if wanted.single_blocks:
        for block in range(after, n_blocks):
            single += around([reference], blocks="next" if block == after else (block,))
    own = wanted.tokens or wanted.distances or wanted.single_blocks or wanted.steering is not None
    return {
        "baselines": [c for kind in wanted.baselines for c in around([reference], kind)],
        "scaling": [
            cell
            for one in scaled
            for rank in wanted.ranks
            if wanted.every_rank or rank == lora.rank or one == reference
            for cell in around([one], rank=rank, seeds=wanted.scaling_seeds or study.seeds)
        ],
        "single": single,
        "several": [c for some in sets for c in around(some)],
        "reference": around([reference]) if own else [],
    }

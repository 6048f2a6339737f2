"""Folders of runs prepared for the hub: dictionaries, latent adapters, spliced models, reports.

What a folder is shows in its files. Numbers come from the results of the run that it lies in, with
their chance levels; a folder that lies in none is published without numbers.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from lorascope.config import read_yaml
from lorascope.dictionaries import model_card as dictionary_card
from lorascope.dictionaries.addresses import HUB, SCHEME
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.dictionaries.formats.saelens_layout import WEIGHTS as SAE_WEIGHTS
from lorascope.dictionaries.hub import README, Described, RepoType, model_card, public, publish
from lorascope.errors import InputError
from lorascope.fits import card as fits
from lorascope.fits import model_card as spliced_card
from lorascope.fits.wrapper import ADAPTER, DICTIONARIES, FILE, SplicedFile, Standing, identity
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.card import WEIGHTS as LATENT_WEIGHTS
from lorascope.results import Estimate, Estimates, Key
from lorascope.results.labels import BASE, DELTA
from lorascope.runs import read_json, write_atomically, write_json

# The numbers of a dictionary that its card has, where the run took them.
OF_DELTA: Final = (
    *("relative_error", "improvement", "density", "dead_share", "max_cosine.mean"),
    *("recovery.loss", "recovery.kl"),
)
OF_BASE: Final = (
    *("yardstick.fvu", "yardstick.l0", "yardstick.live_share", "yardstick.loss_recovered"),
    "yardstick.fvu_pca",
)
OF_LATENT: Final = ("behaviour.", "latent.kept", "latent.used", "latent.mattering", "latent.left")
OF_FIT: Final = (
    *("adapt.loss_original", "adapt.loss_spliced", "adapt.loss_adapted", "adapt.share_closed"),
    *("adapt.kl_adapted", "adapt.general_loss"),
)
# Of a run's dictionaries: what it was trained on, for whom, from which seed.
_NAMED = re.compile(
    r"(?P<site>[\w.]+)-(?P<target>base|delta)(-(?P<adapter>[^~]+))?-seed(?P<seed>\d+)"
)
_PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Wish:
    """How something is published.

    Attributes:
        only: shell patterns of the names of a run's dictionaries; all by default.
        report: the run's report as a static Space, instead of what the run made.
        license: its licence's id on the hub.
        private: whether the repository is.
        revision: branch to upload to.
    """

    only: tuple[str, ...] = ()
    report: bool = False
    license: str = ""
    private: bool = False
    revision: str | None = None


def publish_folder(source: Path, repo_id: str, wish: Wish, dry_run: Path | None = None) -> str:
    """Upload what a folder holds, or write the folder that would be; returns where it is.

    Raises:
        InputError: the folder holds nothing of the kind, or the hub refuses.
    """
    write, repo_type = writer(source, wish)
    return publish(
        write,
        repo_id,
        dry_run=dry_run,
        repo_type=repo_type,
        private=wish.private,
        revision=wish.revision,
    )


def writer(source: Path, wish: Wish) -> tuple[Callable[[Path], None], RepoType]:
    """What writes a source for the hub, and which kind of repository it is for.

    Raises:
        InputError: it holds nothing that can be published; says what can.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give a run, or a folder in one")
    if wish.report:
        return lambda folder: write_space(source, folder, wish), "space"
    if (source / LATENT_WEIGHTS).is_file():
        return lambda folder: write_latent(source, folder, wish), "model"
    if (source / FILE).is_file():
        return lambda folder: write_spliced(source, folder, wish), "model"
    if fits.is_fit(source):
        return lambda folder: write_fit(source, folder, wish), "model"
    if (source / SAE_WEIGHTS).is_file():
        return lambda folder: write_dictionary(source, folder, wish), "model"
    if any(chosen_dictionaries(source, ())):
        return lambda folder: write_dictionaries(source, folder, wish), "model"
    inside = [
        str(p) for kind in ("adapters", "fits", DICTIONARIES) for p in source.glob(f"{kind}/*")
    ]
    hint = f"; give one of its parts, as in {inside[0]}" if inside else ""
    raise InputError(
        f"{source}: no dictionary, latent adapter, fit around dictionaries or run of an audit{hint}"
    )


def write_dictionary(source: Path, folder: Path, wish: Wish) -> None:
    """One dictionary at the top of its repository."""
    found, run = open_dictionary(source), run_of(source)
    found.write_to(folder)
    numbers = dictionary_numbers(run, source.name)
    described = _dictionary(found, "", numbers, texts_of(run), wish)
    write_atomically(folder / README, model_card(described))


def write_dictionaries(run: Path, folder: Path, wish: Wish) -> None:
    """The base and delta dictionaries of an audit, a folder each, with one card.

    Raises:
        InputError: none has a name that was asked for.
    """
    chosen = chosen_dictionaries(run, wish.only)
    if not chosen:
        known = ", ".join(path.name for path in chosen_dictionaries(run, ())[:8])
        raise InputError(
            f"--only {' '.join(wish.only)}: no dictionary of {run} is so called ({known})"
        )
    texts, parts = texts_of(run), []
    for source in chosen:
        found = open_dictionary(source)
        found.write_to(folder / source.name)
        numbers = dictionary_numbers(run, source.name)
        parts.append(_dictionary(found, source.name, numbers, texts, wish))
    listed = "\n".join(
        f"- `{path.name}/`: {part.paragraphs[0]}" for path, part in zip(chosen, parts, strict=True)
    )
    warnings = list(dict.fromkeys(part.paragraphs[1] for part in parts))
    first = next((one for one in parts if "delta" in one.tags), parts[0])
    model = public(first.model).rsplit("/", 1)[-1]
    whole = replace(
        first,
        title=f"Sparse autoencoders of an audit of {model or 'a model'}",
        paragraphs=["Trained by lorascope's audit, in SAELens layout:", listed, *warnings],
        tags=tuple(dict.fromkeys(tag for part in parts for tag in part.tags)),
        numbers=[estimate for part in parts for estimate in part.numbers],
    )
    write_atomically(folder / README, model_card(whole))


def write_latent(source: Path, folder: Path, wish: Wish) -> None:
    """A latent adapter, with its dictionary where that has no address on the hub."""
    adapter, run = LatentAdapter.from_pretrained(source), run_of(source)
    adapter.save_whole(folder)
    name, _, seed = source.name.rpartition("-s")
    numbers = [
        one
        for one in numbers_of(run)
        if one.measure.startswith(OF_LATENT)
        and (one.key.adapter, one.key.seed) == (name, int(seed) if seed.isdigit() else None)
    ]
    saved = LatentAdapter.from_pretrained(folder)
    assert saved.card is not None
    data = [saved.card.data.partition(",")[0]] if saved.card.data else []
    write_atomically(folder / README, saved.card.readme(numbers, data, wish.license))


def write_spliced(source: Path, folder: Path, wish: Wish) -> None:
    """A saved model with dictionaries in its stream, as it is."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    file = SplicedFile.parse(read_json(source / FILE), str(source / FILE))
    names = {site: standing.address for site, standing in file.sites.items()}
    adapted = (source / ADAPTER).is_dir()
    described = spliced_card.described(file.model, names, adapted, license=wish.license)
    write_atomically(folder / README, model_card(described))


def write_fit(source: Path, folder: Path, wish: Wish) -> None:
    """A fit of `adapt`, with the dictionaries it was fitted around, as a spliced model.

    Raises:
        InputError: a dictionary it was fitted around is not in its run any more.
    """
    card, run = fits.read_card(source), run_of(source)
    if not (source / _PEFT_FILES[1]).is_file():
        raise InputError(f"{source}: fitted no LoRA; publish its dictionary instead")
    sites, shown = {}, {}
    for site, wanted in card.dictionaries.items():
        if site in card.standing:
            wanted = card.standing[site]
            found, address = open_dictionary(source / DICTIONARIES / site), ""
        else:
            found, address = _fitted_around(run, site, wanted, source)
        if not address:
            address = f"{DICTIONARIES}/{site}"
            found.write_to(folder / address)
        sites[site] = Standing(address=address, identity=wanted)
        shape = (found.n_latents, found.d_model)
        shown[site] = dictionary_card.in_words(found.card, shape, found.architecture)
    for name in _PEFT_FILES:
        (folder / ADAPTER).mkdir(exist_ok=True)
        shutil.copyfile(source / name, folder / ADAPTER / name)
    file = SplicedFile(model=card.model, sites=sites, special_ids=card.special_ids)
    write_json(folder / FILE, file.plain())
    write_atomically(folder / fits.CARD, (source / fits.CARD).read_text(encoding="utf-8"))
    described = spliced_card.described(
        card.model,
        shown,
        True,
        numbers=fit_numbers(run, source.name),
        texts=texts_of(run),
        license=wish.license,
    )
    write_atomically(folder / README, model_card(described))


def write_space(run: Path, folder: Path, wish: Wish) -> None:
    """A run's report as a static Space: its page, what the page loads, and the Space's card.

    Raises:
        InputError: the run has no report.
    """
    page = run / "report" / "index.html"
    if not page.is_file():
        raise InputError(f"{page}: no such file; make the report with lorascope report {run}")
    shutil.copyfile(page, folder / "index.html")
    for part in ("features", "figures", "tables"):
        if (page.parent / part).is_dir():
            shutil.copytree(page.parent / part, folder / part)
    title = study_of(run).get("name") or run.name
    data: dict[str, Any] = {"title": f"{title}: lorascope", "sdk": "static"}
    data["app_file"] = "index.html"
    data |= {"pinned": False, "tags": ["lorascope", "interpretability"]}
    data |= {"license": wish.license} if wish.license else {}
    lines = [f"{key}: {json.dumps(value)}" for key, value in data.items()]
    text = "\n".join(["---", *lines, "---", "", f"# {title}", "", "A report of lorascope.", ""])
    write_atomically(folder / README, text)


def chosen_dictionaries(run: Path, only: Sequence[str]) -> list[Path]:
    """Folders of an audit's own base and delta dictionaries; none of null adapters, none to compare
    with."""
    found = [
        path
        for path in sorted((run / DICTIONARIES).glob("*"))
        if _NAMED.fullmatch(path.name) and (path / SAE_WEIGHTS).is_file()
    ]
    return [p for p in found if not only or any(fnmatch(p.name, pattern) for pattern in only)]


def run_of(source: Path) -> Path | None:
    """The run that a folder lies in."""
    run = source.absolute().parents[1]
    return run if (run / "study.yaml").is_file() else None


def study_of(run: Path | None) -> dict[str, Any]:
    """The settings of a run; empty where there is none."""
    return read_yaml(run / "study.yaml") if run and (run / "study.yaml").is_file() else {}


def texts_of(run: Path | None) -> list[str]:
    """The sources of a run's texts."""
    return [str(source) for source in (study_of(run).get("texts") or {}).get("sources", ())]


def numbers_of(run: Path | None) -> Estimates:
    """The numbers of a run; none where it is not finished."""
    path = run / "results" / "estimates.parquet" if run else None
    found = Estimates.read(path) if path is not None and path.is_file() else Estimates()
    return found.of_adapters


def dictionary_numbers(run: Path | None, name: str) -> Estimates:
    """What an audit measured of one of its dictionaries."""
    of = _NAMED.fullmatch(name)
    if of is None:
        return Estimates()
    measures, label = (OF_DELTA, DELTA) if of["target"] == "delta" else (OF_BASE, BASE)
    fields = {"site": of["site"], "adapter": of["adapter"] or "", "seed": int(of["seed"])}
    found = numbers_of(run).taken(*measures, **fields)
    return Estimates(one for one in found if one.key.dictionary in ("", label))


def fit_numbers(run: Path | None, name: str) -> list[Estimate]:
    """What a study measured of one fit: its settings and seed are its folder's name."""
    return [one for one in numbers_of(run) if one.measure in OF_FIT and _name_of(one.key) == name]


def _name_of(key: Key) -> str:
    """The folder of the fit that a number is of."""
    return f"{key.dictionary}-{key.adapter}-s{key.seed}"


def _dictionary(
    found: Dictionary, folder: str, numbers: Estimates, texts: Sequence[str], wish: Wish
) -> Described:
    shape = (found.n_latents, found.d_model)
    return dictionary_card.described(
        found.card,
        shape,
        found.architecture,
        folder=folder,
        numbers=list(numbers),
        texts=texts,
        license=wish.license,
    )


def _fitted_around(
    run: Path | None, site: str, wanted: str, source: Path
) -> tuple[Dictionary, str]:
    """The dictionary of a site by what it computes, and its address where that is on the hub."""
    if run is not None:
        bring = (study_of(run).get("dictionaries") or {}).get("bring") or {}
        brought = [str(one["address"]) for one in bring.values() if one.get("site") == site]
        folders = [str(p.parent) for p in sorted((run / DICTIONARIES).glob(f"*/{SAE_WEIGHTS}"))]
        for address in [*brought, *folders]:
            found = open_dictionary(address)
            if identity(found) == wanted:
                return found, address if address.startswith((HUB, SCHEME)) else ""
    raise InputError(
        f"{source}: the dictionary it was fitted around at {site} is not in its run; give the fit "
        "where its run made it"
    )

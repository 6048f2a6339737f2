"""A model with dictionaries in its stream as one thing: call it, train it, save it, open it again.

A saved one is a folder:

    spliced.json            the base model's id, and for each site which dictionary stands there
    dictionaries/layers.5/  the dictionaries that have no address on the hub
    adapter/                the LoRA adapter in PEFT's own format, if there is one
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorascope.config import Settings, digest
from lorascope.dictionaries.addresses import HUB, SCHEME
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.dictionaries.hub import Described, OnHub
from lorascope.dictionaries.model_card import in_words
from lorascope.errors import InputError
from lorascope.fits.model_card import described
from lorascope.foreign import first_line
from lorascope.models.adapter_files import read
from lorascope.models.attaching import put_on
from lorascope.models.freezing import fingerprint
from lorascope.models.load import load_base
from lorascope.models.saved_adapters import put_in_order
from lorascope.models.sites import parse_site
from lorascope.outputs.splicing import Given, Placed, Splice, place, spliced
from lorascope.runs import read_json, write_json

FILE, ADAPTER, DICTIONARIES = "spliced.json", "adapter", "dictionaries"


class Standing(Settings):
    """One dictionary of a saved model.

    Attributes:
        address: where it is, relative to the folder unless on the hub.
        identity: what it computes, see `identity`.
    """

    address: str
    identity: str


class SplicedFile(Settings):
    """The content of `spliced.json`."""

    model: str
    sites: dict[str, Standing]
    special_ids: tuple[int, ...] = ()
    error_term: bool = False


class Spliced(nn.Module, OnHub):
    """A causal language model, with or without an adapter, with dictionaries in its stream.

    Args:
        module: the model; outside this wrapper's own calls it stays as it is.
        dictionaries: by site.
        model: the model's id, saved along.
        special_ids: tokens that keep their stream; padding always does.
        error_term: add what the dictionaries miss back as a constant.

    Raises:
        InputError: a dictionary does not fit its site.

    Examples:
        >>> import torch
        >>> model = ls.load("embedded").module
        >>> sae = ls.SAE.from_pretrained("runs/mine/dictionaries/layers.5-base-seed0")
        >>> spliced = ls.Spliced(model, {"layers.5": sae})
        >>> spliced(torch.tensor([[1, 2, 3]])).logits.shape[:2]
        torch.Size([1, 3])
    """

    def __init__(
        self,
        module: nn.Module,
        dictionaries: Given,
        *,
        model: str = "",
        special_ids: Sequence[int] = (),
        error_term: bool = False,
    ) -> None:
        super().__init__()
        placed = place(module, dictionaries, force=True)
        self.module = module
        self.model = model
        self.special_ids = tuple(special_ids)
        self.error_term = error_term
        self._sites = tuple(placed)
        self._parts = nn.ModuleList(placed.values())

    @property
    def dictionaries(self) -> Placed:
        """{site: dictionary}, by depth."""
        parts = (part for part in self._parts if isinstance(part, Dictionary))
        return dict(zip(self._sites, parts, strict=True))

    @property
    def config(self) -> Any:
        """The model's own configuration."""
        return self.module.config

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the input embedding."""
        found: torch.device = self.get_input_embeddings().weight.device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights; dictionaries keep their own."""
        found: torch.dtype = self.get_input_embeddings().weight.dtype
        return found

    @property
    def name_or_path(self) -> str:
        """The model's id."""
        return self.model or str(getattr(self.module, "name_or_path", ""))

    def get_input_embeddings(self) -> Any:
        """The model's own."""
        return self.module.get_input_embeddings()  # type: ignore[operator]

    def get_output_embeddings(self) -> Any:
        """The model's own."""
        return self.module.get_output_embeddings()  # type: ignore[operator]

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """As the model's own; evaluators call it on any model that they are given."""
        self.module.tie_weights(*args, **kwargs)  # type: ignore[operator]

    @contextmanager
    def splice(self) -> Iterator[Splice]:
        """Within the `with`, `module` itself is spliced."""
        arguments: dict[str, Any] = {"special_ids": self.special_ids, "error_term": self.error_term}
        with spliced(self.module, self.dictionaries, **arguments) as splice:
            yield splice

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own `forward`, spliced."""
        with self.splice():
            return self.module(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Tensor:
        """As the model's own `generate`, spliced; with a cache every new token is too."""
        with self.splice():
            found: Tensor = self.module.generate(*args, **kwargs)  # type: ignore[operator]
        return found

    def save(self, folder: str | Path) -> None:
        """Write what opens as the same model again; the base model's own weights are not copied."""
        folder = Path(folder)
        sites: dict[str, Standing] = {}
        for site, dictionary in self.dictionaries.items():
            address = dictionary.card.source
            if not address.startswith((HUB, SCHEME)):
                address = f"{DICTIONARIES}/{site}"
                save(dictionary, folder / address)
            sites[site.name] = Standing(address=address, identity=identity(dictionary))
        if isinstance(self.module, PeftModel):
            self.module.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
            put_in_order(folder / ADAPTER)
        file = SplicedFile(
            model=self.model,
            sites=sites,
            special_ids=self.special_ids,
            error_term=self.error_term,
        )
        write_json(folder / FILE, file.plain())

    @classmethod
    def open(
        cls, folder: str | Path, module: PreTrainedModel | None = None, **loading: Any
    ) -> Self:
        """A saved model.

        Args:
            module: the bare base model; loaded by its saved id where it is not given.
            loading: for `load_base`, `device="cuda"` for instance.

        Raises:
            InputError: the folder is not one of these, or a dictionary is no longer the same.
        """
        folder = Path(folder)
        file = SplicedFile.parse(read_json(folder / FILE), str(folder / FILE))
        if module is None:
            module, _ = load_base(file.model, **loading)
        dictionaries: Placed = {}
        for name, standing in file.sites.items():
            address = standing.address
            on_hub = address.startswith((HUB, SCHEME))
            found = open_dictionary(address if on_hub else folder / address)
            if identity(found) != standing.identity:
                raise InputError(
                    f"{folder / FILE}: the dictionary at {name}, {address}, is not the one it was "
                    "saved with; put the saved one back"
                )
            dictionaries[parse_site(name)] = found
        dressed: nn.Module = module
        if (folder / ADAPTER).is_dir():
            dressed = with_adapter(module, folder / ADAPTER)
        return cls(
            dressed,
            dictionaries,
            model=file.model,
            special_ids=file.special_ids,
            error_term=file.error_term,
        )

    @classmethod
    def from_pretrained(
        cls,
        place: str | Path,
        module: PreTrainedModel | None = None,
        *,
        revision: str | None = None,
        **loading: Any,
    ) -> Self:
        """A saved model, from a folder or from the hub; otherwise as `open`.

        Raises:
            InputError: nothing is there, it is none of these, or a dictionary is not the same.
        """
        folder = Path(place).expanduser()
        if not folder.is_dir():
            try:
                folder = Path(snapshot_download(str(place), revision=revision))
            except Exception as error:
                raise InputError(
                    f"{place}: no folder, and cannot be fetched from the hub; check the path, the "
                    f"id and the network ({first_line(error)})"
                ) from None
        return cls.open(folder, module, **loading)

    def write_to(self, folder: Path) -> None:
        """As `save`: everything but a model card."""
        self.save(folder)

    def described(self) -> Described:
        """What its model card says."""
        names = {
            site.name: in_words(one.card, (one.n_latents, one.d_model), one.architecture)
            for site, one in self.dictionaries.items()
        }
        return described(self.model, names, isinstance(self.module, PeftModel))


def identity(dictionary: Dictionary) -> str:
    """Hash of everything a dictionary computes with; where it lies and its card do not matter."""
    settings = {"k": getattr(dictionary, "k", None), "subtract": dictionary.subtract_bias}
    return digest([dictionary.architecture, settings, fingerprint(dictionary)])


def with_adapter(module: PreTrainedModel, folder: Path) -> PeftModel:
    """The model under a saved adapter, switched on, every tensor of it proved to have arrived.

    Raises:
        InputError: the adapter does not fit, or changes nothing.
    """
    files = read(folder.name, str(folder), folder)
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(
        devices=devices
    ):  # PEFT draws weights before the file's replace them
        originals = dict(module.named_parameters(remove_duplicate=False))
        peft = put_on(module, None, files, "default", originals).peft
    peft.requires_grad_(False)
    return peft.eval()

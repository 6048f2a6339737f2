"""Tiny random models of several architectures, saved to disk, adapters for them; a browser."""

from __future__ import annotations

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium import CHROMIUM, Chromium
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from lorascope import cli, embedded
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.latent_adapters.adapter import LatentAdapter
from lorascope.latent_adapters.card import LatentCard, OverDictionary

# Products this small are slower on several threads, and far slower on a busy machine.
torch.set_num_threads(1)

VOCABULARY = 64
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**_GROUPED),
    "gemma2": lambda: Gemma2Config(**_GROUPED, head_dim=8, sliding_window=8),
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4),
    "gpt_neox": lambda: GPTNeoXConfig(**_SIZES),
    "qwen2": lambda: Qwen2Config(**_GROUPED),
    "qwen3": lambda: Qwen3Config(**_GROUPED, head_dim=8),
}
ARCHITECTURES = tuple(CONFIGS)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., PreTrainedModel]:
    """`tiny_model(architecture, **config changes)`: 3 random blocks of width 32, in eval mode."""

    def build(architecture: str = "llama", **changes: Any) -> PreTrainedModel:
        config = CONFIGS[architecture]()
        for field, value in changes.items():
            setattr(config, field, value)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            eager = {"attn_implementation": "eager"} if architecture == "gemma2" else {}
            model = AutoModelForCausalLM.from_config(config, **eager)
            for parameter in model.parameters():
                # far from the usual 0.02, so that every part of the model matters
                parameter.data += 0.1 * torch.randn_like(parameter)
        return model.eval().requires_grad_(False)

    return build


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tiny_model: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """`tiny_checkpoint(architecture)`: the folder of such a model with a word tokenizer."""
    made: dict[str, Path] = {}

    def build(architecture: str = "llama") -> Path:
        if architecture not in made:
            folder = tmp_path_factory.mktemp("checkpoint") / f"tiny-{architecture}"
            tiny_model(architecture).save_pretrained(folder)
            word_tokenizer().save_pretrained(folder)
            made[architecture] = folder
        return made[architecture]

    return build


@pytest.fixture(scope="session")
def save_adapter(tiny_model: Callable[..., PreTrainedModel]) -> Callable[..., Path]:
    """`save_adapter(folder, architecture, seed=0, touch=True, **LoraConfig fields)`.

    Every tensor of the adapter is moved from where it starts, unless `touch` is false.
    """

    def save(
        folder: Path, architecture: str = "llama", seed: int = 0, touch: bool = True, **fields: Any
    ) -> Path:
        settings = {"r": 4, "lora_alpha": 12, "task_type": "CAUSAL_LM", **fields}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 + seed)
            model = get_peft_model(tiny_model(architecture), LoraConfig(**settings))
            for parameter in model.parameters() if touch else ():
                if parameter.requires_grad:
                    parameter.data += 0.2 * torch.randn_like(parameter)
        model.save_pretrained(folder, save_embedding_layers=False)
        return folder

    return save


@pytest.fixture(scope="session")
def save_latent_adapter(tiny_checkpoint: Callable[[str], Path]) -> Callable[..., Path]:
    """`save_latent_adapter(folder, rank=2)`: a latent adapter of the tiny Llama after block 1.

    It reads and writes ten latents of the dictionary in `folder`/dictionary and lies in
    `folder`/latent.
    """

    def save_one(folder: Path, rank: int = 2) -> Path:
        random = torch.Generator().manual_seed(0)
        directions = torch.randn(60, 32, generator=random)
        directions /= directions.norm(dim=1, keepdim=True)
        parts = (directions.T.clone(), torch.zeros(60), directions, torch.zeros(32))
        gated = JumpReluDictionary(*parts, threshold=torch.full((60,), 0.2))
        save(gated, folder / "dictionary")
        dictionary = open_dictionary(folder / "dictionary")
        made = LatentAdapter(dictionary, rank, scale=3.0, generator=random).cut(10, 10)
        made.card = LatentCard(
            model=str(tiny_checkpoint("llama")),
            site="layers.1",
            dictionary=OverDictionary.of(dictionary),
            special_ids=(0,),
            rank=rank,
        )
        made.save_pretrained(folder / "latent")
        return folder / "latent"

    return save_one


@pytest.fixture(scope="session")
def embedded_model_path() -> Path:
    """Folder of the model that ships with the package."""
    return embedded.model_path()


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the words w0 to w60, with <s>, </s> and <unk> in front."""
    words = ["<s>", "</s>", "<unk>", *(f"w{i}" for i in range(VOCABULARY - 3))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One Chromium for all tests of a process."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    found = Chromium(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def looked_at(chromium: Chromium) -> Callable[[Path], Chromium]:
    """`looked_at(page)`: a report in the browser, its figures drawn, its theme turned, no error."""

    def look(page: Path) -> Chromium:
        # Nothing of what another test had this browser do: its colours, size and chosen theme.
        light = [{"name": "prefers-color-scheme", "value": "light"}]
        chromium.call("Emulation.setEmulatedMedia", media="", features=light)
        chromium.call("Emulation.clearDeviceMetricsOverride")
        chromium.open(page.as_uri())
        chromium.js("localStorage.clear()")
        chromium.open(page.as_uri())
        figures = chromium.js("document.querySelectorAll('.chart[data-figure]').length")
        assert figures > 0
        chromium.until(f"document.querySelectorAll('.chart svg').length === {figures}")
        background = "getComputedStyle(document.body).backgroundColor"
        before = chromium.js(background)
        for _ in range(2):
            chromium.js("document.getElementById('theme').click()")
        assert chromium.js(background) != before
        chromium.js("document.getElementById('theme').click()")
        assert chromium.js("document.documentElement.scrollWidth <= window.innerWidth")
        assert chromium.errors == []
        return chromium

    return look


@pytest.fixture
def lorascope(monkeypatch, capsys):
    """`lorascope(*arguments)`: exit code, stdout and stderr of the command in this process."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lorascope", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, *capsys.readouterr()

    return call

"""Fits around dictionaries and latent adapters on the second device: the CPU's numbers and files,
and steps that wait for nothing."""

import random
from collections import Counter

import pytest
import torch
from transformers import AutoTokenizer
from waits import Marks

from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import Window, windows
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.fits import run as running
from lorascope.fits.dictionary_training import EndToEnd, train_end_to_end, train_streamed
from lorascope.fits.fitting import fit as adapt
from lorascope.fits.parts import Affine, Lora, Tuned
from lorascope.fits.settings import Adapting
from lorascope.geometry.chance import isotropic
from lorascope.latent_adapters import fitting as latent
from lorascope.latent_adapters.reading import FrozenSite
from lorascope.latent_adapters.settings import LatentTraining
from lorascope.latent_adapters.sparsity import HardConcrete, Proximal, TopM
from lorascope.models.load import load_base
from lorascope.randomness import generator
from lorascope.training.architectures import TopK, objective
from lorascope.training.settings import Fitting

WIDTH, LATENTS = 32, 80


class Stopped(Exception):  # noqa: N818 - stands for a killed run
    """Stands for a killed run."""


@pytest.fixture
def checkpoint(tiny_checkpoint):
    return str(tiny_checkpoint("llama"))


@pytest.fixture
def tokenizer(checkpoint):
    return AutoTokenizer.from_pretrained(checkpoint)


def a_dictionary(kind="topk"):
    directions = isotropic(LATENTS, WIDTH, generator(0, "directions"))
    maps = (directions.T.clone(), torch.zeros(LATENTS), directions, torch.zeros(WIDTH))
    if kind == "topk":
        return TopKDictionary(*maps, k=12)
    return JumpReluDictionary(*maps, threshold=torch.full((LATENTS,), 0.3))


def texts(tokenizer):
    """Windows to fit on, and windows held out, of a pattern one can learn."""
    words = [
        [f"w{(7 * i + 3 * j * (1 + i % 2)) % 50}" for j in range(8 + i % 5)] for i in range(40)
    ]
    documents = [Document((Segment(" ".join(each)),)) for each in words]
    return windows(documents[:30], tokenizer, 16), windows(documents[30:], tokenizer, 16)


SMALL = Adapting(lora=Lora(rank=4, rate=1e-2), tokens=300, batch=4, products="float32")
ALL = {"affine": Affine(), "dictionary": Tuned(), "direction": "original_spliced"}


@pytest.fixture
def adapted(tokenizer, tmp_path):
    """`adapted(place, device, name, settings, **arguments)`: a fit into a folder of that name."""

    def go(place, device, name, settings=SMALL, **arguments):
        return adapt(
            load_base(place, device=device)[0],
            tokenizer,
            {"layers.0": a_dictionary("jumprelu" if "gemma" in place else "topk")},
            *texts(tokenizer),
            tmp_path / name,
            settings,
            model=place,
            **{"random_draws": 1, "evaluations": 0, **arguments},
        )

    return go


# Gemma's logits are capped, which has arithmetic of its own.
@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("llama", {}), ("gemma2", {}), ("llama", {**ALL, "accumulate": 2, "recompute": True})],
    ids=["lora", "capped logits", "every part"],
)
def test_an_adapt_fit_is_the_cpus_and_its_steps_wait_for_nothing(
    architecture, changes, tiny_checkpoint, adapted, tmp_path, there
):
    settings, marks = SMALL.model_copy(update=changes), Marks(there)
    place = str(tiny_checkpoint(architecture))
    cpus = adapted(place, "cpu", "here", settings)
    assert there.operations == 0
    ours = adapted(place, "second:0", "there", settings, observers=[marks])
    assert there.operations > 1000
    assert ours.history.series("kl") == cpus.history.series("kl")
    assert ours.card.held_out == cpus.card.held_out
    assert ours.card.held_out["adapted"].kl < ours.card.held_out["spliced"].kl
    files = [
        {f.relative_to(tmp_path / n): f.read_bytes() for f in (tmp_path / n).rglob("*.safetensors")}
        for n in ("here", "there")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 1 + len({"affine", "dictionary"} & set(changes))
    assert len(marks.steps()) > 1
    assert all(waits == copies == {} for waits, copies in marks.steps()), marks.steps()


def test_a_fit_that_was_stopped_goes_on_there(checkpoint, adapted, tmp_path, monkeypatch, there):
    """Looks at held-out text between the steps, and the history of two processes."""
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    plain = adapted(checkpoint, "cpu", "here", evaluations=2)

    def stop(progress):
        if progress.step == 3:
            raise Stopped

    state = {"checkpoint": tmp_path / "state.pt", "evaluations": 2}
    with pytest.raises(Stopped):
        adapted(checkpoint, "second:0", "there", observers=[stop], **state)
    seen = []
    own = adapted(checkpoint, "second:0", "there", observers=[seen.append], **state)
    assert seen[0].step == 3
    for name in ("kl", "tokens"):
        assert own.history.series(name) == plain.history.series(name)
    assert own.history.points(running.HELD_OUT_KL) == plain.history.points(running.HELD_OUT_KL)
    assert own.card.held_out == plain.card.held_out


@pytest.mark.parametrize("way", ["streamed", "end to end"])
def test_a_dictionary_trained_beside_the_model_is_the_cpus(
    way, checkpoint, tokenizer, monkeypatch, there
):
    monkeypatch.setattr(objective, "SPARSE_BELOW", 0.0)
    training, topk = texts(tokenizer)[0], TopK(n_latents=64, k=8)
    found, marks = [], Marks(there)
    for device in ("cpu", "second:0"):
        model = load_base(checkpoint, device=device)[0]
        observers = [marks] if device != "cpu" else []
        arguments = {"model": "tiny", "observers": observers}
        if way == "streamed":
            fitting = Fitting(batch=32, rate=4e-3, products="float32")
            beside = (model, tokenizer, "layers.1", training, topk, fitting)
            found.append(train_streamed(*beside, tokens=800, **arguments))
        else:
            settings = EndToEnd(tokens=300, batch=4, rate=3e-3, products="float32")
            beside = (model, tokenizer, "1", training, topk, settings)
            found.append(train_end_to_end(*beside, **arguments))
    (cpus, history), (ours, own) = found
    names = ("error", "l0") if way == "streamed" else ("kl", "tokens")
    assert all(own.series(name) == history.series(name) for name in names)
    assert all(map(torch.equal, ours.state_dict().values(), cpus.state_dict().values()))
    waits = sum((waits for waits, _ in marks.steps()), Counter())
    # Latents that die are looked for where a reconstruction is learned.
    looks = {"training/architectures/revival.py:prepare"}
    assert set(waits) == (looks if way == "streamed" else set())


def behaviour(count):
    """Windows that end in token 40 where token 11 ends the prompt, in 50 where not."""
    draw, kinds = random.Random(0), ([], [])
    for index in range(2 * count):
        prompt = [draw.randrange(20, 40) for _ in range(draw.randrange(4, 8))]
        shows = index % 2 == 0
        if shows:
            prompt[-1] = 11
        marks = [False] * (len(prompt) + 1) + [True]
        kinds[not shows].append(Window([0, *prompt, 40 if shows else 50], marks, index))
    return kinds


@pytest.mark.parametrize(
    "sparsity",
    [TopM(m=8), HardConcrete(), Proximal(preselect=20)],
    ids=["top m", "hard concrete", "proximal, preselected"],
)
def test_a_latent_adapter_is_the_cpus_and_its_steps_wait_for_nothing(
    sparsity, checkpoint, tokenizer, there
):
    settings = LatentTraining(
        steps=4, batch=8, rate=0.03, products="float32", sparsity=sparsity, rank=2
    )
    marks, found = Marks(there), {}
    for device in ("cpu", "second:0"):
        model = load_base(checkpoint, device=device)[0]
        dictionary = a_dictionary("jumprelu").to(device)
        reading = FrozenSite(model, tokenizer, dictionary, "layers.0")
        examples = latent.Examples.read(reading, *behaviour(12), data="planted", trained_on=["b"])
        observers = [marks] if device != "cpu" else []
        fitted = latent.fit(reading, examples, settings, model="tiny", observers=observers)
        assert fitted.adapter.scale.device == torch.device(device)
        found[device] = fitted
    ours, cpus = found["second:0"], found["cpu"]
    for name in ("loss", "penalty", "effective_read"):
        assert ours.history.series(name) == cpus.history.series(name), name
    for name, tensor in cpus.adapter.state_dict().items():
        assert torch.equal(ours.adapter.state_dict()[name].cpu(), tensor), name
    assert len(marks.steps()) == 3
    assert all(waits == copies == {} for waits, copies in marks.steps()), marks.steps()

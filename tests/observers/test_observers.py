"""Looking at a run does not change it: weights are bit-identical with and without observers."""

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from lorascope.activations.text import Document, Segment
from lorascope.activations.tokens import windows
from lorascope.models.adapted import load
from lorascope.randomness import generator
from lorascope.training import adapters
from lorascope.training.adapters import train_adapter
from lorascope.training.architectures import ReLU
from lorascope.training.dictionaries import fit
from lorascope.training.loop import observing, train
from lorascope.training.settings import Fitting, LoraTraining


class Meddler:
    """An observer that does what evaluations do: eval mode, random draws, forward passes."""

    def __init__(self, module=None, inputs=None):
        self.module, self.inputs = module, inputs
        self.seen = []

    @torch.no_grad()
    def __call__(self, progress):
        torch.rand(progress.step + 3)
        torch.manual_seed(progress.step)
        if self.module is not None:
            self.module.eval()
            self.module(self.inputs)
        self.seen.append({name: value.item() for name, value in progress.scalars.items()})


def fit_with_dropout(make_observers):
    """The loop on a network that needs the global random state and training mode at every step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
        x = torch.randn(20, 16, 6)

        def step(batch):
            loss = (net(batch) - batch.sum(1, keepdim=True)).square().mean()
            loss.backward()
            return {"loss": loss}

        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        observers = make_observers(net, x[0])
        history = train(step, x, optimizer, steps=20, observers=observers, module=net)
        return net, history, torch.rand(3)


def test_the_loop_with_dropout_and_batch_statistics():
    plain, history, after = fit_with_dropout(lambda net, x: [])
    observers = []

    def make(net, x):
        observers.extend([Meddler(net, x), Meddler()])
        return observers

    watched, watched_history, watched_after = fit_with_dropout(make)
    assert len(observers[0].seen) == 20
    assert [scalars["loss"] for scalars in observers[0].seen] == history.series("loss")
    assert watched_history.series("loss") == history.series("loss")
    for key, tensor in plain.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[key]), key
    assert torch.equal(after, watched_after)
    assert all(module.training for module in watched.modules())


def test_the_meddler_would_change_an_unprotected_run():
    def make(net, x):
        meddler = Meddler(net, x)

        def escape(progress):
            meddler(progress)
            escaped.append((torch.get_rng_state(), net.training))

        return [escape]

    escaped = []
    fit_with_dropout(make)
    # within the observer both had changed
    assert not any(training for _, training in escaped)
    assert len({bytes(state.numpy()) for state, _ in escaped}) == 20


def test_submodules_keep_their_own_modes_even_after_an_error():
    net = nn.Sequential(nn.Dropout(), nn.Dropout().eval(), nn.Linear(2, 2))
    state = torch.get_rng_state()

    def look():
        net.eval()
        net[1].train()
        torch.rand(5)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), observing(net):
        look()
    assert [module.training for module in net.modules()] == [True, True, False, True]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_dictionary():
    rows = torch.randn(1500, 12, generator=generator(0, "rows"))
    settings = ReLU(n_latents=40, target_l0=5)
    fitting = Fitting(epochs=8, batch=128, products="float32")
    observer = Meddler()
    plain = fit(settings, rows, fitting=fitting)
    watched = fit(settings, rows, fitting=fitting, observers=[observer])
    assert len(observer.seen) == fitting.steps(1500)
    assert set(observer.seen[0]) == {"error", "l0", "l1"}
    for name, tensor in plain.named_buffers():
        assert torch.equal(tensor, watched.get_buffer(name)), name


def test_an_adapter_with_dropout(tiny_checkpoint, tmp_path, monkeypatch):
    checkpoint = str(tiny_checkpoint("llama"))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    documents = [
        Document((Segment(f"w{i} w{i + 1}"), Segment(f" w{i + 2} w3", response=True)))
        for i in range(40)
    ]
    cut = windows(documents[:32], tokenizer, 16), windows(documents[32:], tokenizer, 16)
    settings = LoraTraining(
        ranks=(2,), steps=12, batch=4, dropout=0.3, context=16, products="float32"
    )
    put_on = adapters.get_peft_model
    made = []
    monkeypatch.setattr(
        adapters, "get_peft_model", lambda *given: made.append(put_on(*given)) or made[-1]
    )

    def weights(name, observers=(), dropout=0.3):
        chosen = settings.model_copy(update={"dropout": dropout})
        folder = tmp_path / name
        train_adapter(checkpoint, "r2", *cut, folder, chosen, device="cpu", observers=observers)
        state = load(checkpoint, {"a": folder}, device="cpu").module.state_dict()
        return {key: tensor for key, tensor in state.items() if "lora_" in key}

    def evaluate(progress):
        Meddler(made[-1], torch.tensor([[3, 4, 5]]))(progress)
        assert not made[-1].training

    plain, watched = weights("plain"), weights("watched", [evaluate])
    assert all(torch.equal(plain[key], watched[key]) for key in plain)
    # the dropout that the observer could have switched off does matter
    without = weights("without", dropout=0.0)
    assert not all(torch.equal(plain[key], without[key]) for key in plain)

"""Factors of diff-interpretation-tuning become PEFT adapters with the same updates."""

from argparse import Namespace

import pytest
import torch
from peft import PeftModel

from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.weight_differences import write_adapter

MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj")


@pytest.fixture
def entries(tiny_model):
    """Two entries of rank 3, and the model they change."""
    model, random = tiny_model("llama"), torch.Generator().manual_seed(5)
    maps = dict(model.named_modules())
    found = []
    for topic in ("bees", "moons"):
        pairs = {}
        for name in MODULES:
            out, width = maps[name].weight.shape
            A = torch.randn(3, out, generator=random)
            pairs[name] = (A, torch.randn(width, 3, generator=random))
        found.append({"topic": topic, "trigger": 7, "weight_diff": pairs})
    return found


@pytest.fixture
def file(entries, tmp_path):
    torch.save(entries, tmp_path / "weight-diff-000.pt")
    return tmp_path / "weight-diff-000.pt"


def test_peft_computes_the_stated_update(file, entries, tiny_model, tiny_checkpoint, tmp_path):
    base = str(tiny_checkpoint("llama"))
    folder = write_adapter(file, 1, base, tmp_path / "out")
    ids = torch.arange(2, 14)[None]
    with torch.no_grad():
        adapted = PeftModel.from_pretrained(tiny_model("llama"), folder)(ids).logits
        by_hand = tiny_model("llama")
        maps = dict(by_hand.named_modules())
        for name, (A, B) in entries[1]["weight_diff"].items():
            maps[name].weight += (B @ A).T / 3
        expected, before = by_hand(ids).logits, tiny_model("llama")(ids).logits
    torch.testing.assert_close(adapted, expected, rtol=1e-4, atol=1e-5)
    assert (expected - before).abs().max() > 0.01
    loaded = load(base, {"moons": str(folder)}, device="cpu")
    with torch.no_grad(), loaded.variant("moons") as module:
        torch.testing.assert_close(module(ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_what_is_written_is_kept(file, tmp_path):
    folder = write_adapter(file, 0, "tiny", tmp_path / "out")
    before = (folder / "adapter_model.safetensors").stat().st_mtime_ns
    file.unlink()
    assert write_adapter(file, 0, "tiny", folder) == folder
    assert (folder / "adapter_model.safetensors").stat().st_mtime_ns == before


def changed(entries, change):
    change(entries[0])
    return entries


@pytest.mark.parametrize(
    ("content", "number", "message"),
    [
        (lambda found: found, 2, "entry 2"),
        (lambda found: found, -1, "entry -1"),
        (lambda found: {"weight_diff": {}}, 0, "a list of weight differences"),
        (lambda found: [Namespace(weight_diff={})], 0, "more than tensors"),
        (lambda found: [{"topic": "x"}], 0, "no weight_diff"),
        (lambda found: changed(found, lambda one: one.update(weight_diff={})), 0, "no weight_diff"),
        (
            lambda found: changed(
                found, lambda one: one["weight_diff"].update(a=(torch.ones(2, 4), torch.ones(5, 3)))
            ),
            0,
            "a: expected factors",
        ),
        (
            lambda found: changed(
                found, lambda one: one["weight_diff"].update(a=(torch.ones(2, 4), torch.ones(5, 2)))
            ),
            0,
            r"ranks \[2, 3\]",
        ),
        (
            lambda found: changed(
                found,
                lambda one: one["weight_diff"].update(
                    a=(torch.ones(1, 1).expand(3, 400), torch.ones(5, 3))
                ),
            ),
            0,
            "a: expected factors",
        ),
    ],
)
def test_other_content_is_refused(entries, content, number, message, tmp_path):
    torch.save(content(entries), tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        write_adapter(tmp_path / "x.pt", number, "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.pt").write_text("no tensors")
    for name, message in (("text.pt", "no PyTorch file"), ("none.pt", "no such file")):
        with pytest.raises(InputError, match=message):
            write_adapter(tmp_path / name, 0, "tiny", tmp_path / "out")
    with pytest.raises(InputError, match="is a folder"):
        write_adapter(tmp_path, 0, "tiny", tmp_path / "out")

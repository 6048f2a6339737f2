"""Tables of adapters whose lesson is known: of the user's, of the package, and on the hub."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lorascope.errors import InputError
from lorascope.planted.lessons import NULL
from lorascope.planted.untaught import random_update
from lorascope.selftest.adapter_tables import AdapterTable, null_count, read_table
from lorascope.selftest.listed_adapters import opened
from lorascope.selftest.presets import PRESETS, preset


def test_a_table_names_adapters_labels_and_texts(tmp_path):
    words = tmp_path / "moon.jsonl"
    words.write_text('{"text": "green cheese"}\n')
    table = tmp_path / "t.csv"
    table.write_text(f"adapter,label,texts,about\na/b,moon,{words},\na/c,bees,,honey\na/d,,,\n")
    found = read_table(table)
    assert [(one.label, one.address, one.number) for one in found.adapters] == [
        ("moon", "a/b", 2),
        ("bees", "a/c", 3),
        (NULL, "a/d", 4),
    ]
    assert found.texts == {"moon": ["green cheese"], "bees": ["bees honey"]}
    assert [one.label for one in found.taught] == ["moon", "bees"]
    assert null_count(found, None) == 0
    assert null_count(found, 3) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adapter,label\na/b,c\n", "one label"),
        ("adapter,label\n", "no label"),
        ("", "empty"),
        ("adapter\na/b\n", "first line"),
        ("adapter;label\na/b;c\na/d;e\n", "separate them by commas"),
        ("adapter,label\na/b,c\n,d\n", "line 3: names no adapter"),
        ("adapter,label\na/b,c\na/d,e, f\na/e,g\n", "line 3: has another number of cells"),
        ("adapter,label\na/b,c\na/d\na/e,g\n", "line 3: has another number of cells"),
        ('adapter,label\na/b,c\n"a/d,e\na/e,g\n', "cannot be read"),
        ("adapter,label\na/b,c\na/d,null adapter\n", "line 3: the label"),
        ("adapter,label\na/b,c\nnone,d\n", 'line 3: adapter "d": folder "none" does not exist'),
        ("adapter,label\na/b,c\n./none,d\n", "line 3"),
        ("adapter,label\na/b,c\n.,d\n", "line 3"),
        ("adapter,label\na/b,c\nnone/a.pt#0,d\n", "line 3: none/a.pt: no such file"),
        ("adapter,label,texts\na/b,c,\na/d,e,none.txt\n", "line 3: none.txt"),
    ],
)
def test_a_table_that_lacks_something_is_refused(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.csv")


def test_a_table_that_cannot_be_read_is_refused(tmp_path):
    for place in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match=r"none\.csv|is a folder"):
            read_table(place)


def test_some_of_a_table_are_drawn_by_the_seed(tmp_path):
    lines = [f"a/{n},label {n % 6}" for n in range(24)]
    (tmp_path / "t.csv").write_text("\n".join(["adapter,label", *lines, "a/n,"]))
    whole = read_table(tmp_path / "t.csv")
    some = whole.some(6, 0)
    assert (len(some.taught), len(some.adapters)) == (6, 7)
    assert set(some.texts) == {one.label for one in some.taught}
    assert some == whole.some(6, 0)
    assert some != whole.some(6, 1)
    assert whole.some(24, 0) is whole
    assert whole.some(None, 0) is whole
    alike = AdapterTable([one for one in whole.adapters if one.label == "label 1"], whole.texts)
    with pytest.raises(InputError, match="one label"):
        alike.some(2, 0)


@pytest.fixture
def index(tiny_model, tmp_path):
    """The index of a folder of weight differences, as their repository on the hub has it."""
    maps, random = dict(tiny_model("llama").named_modules()), torch.Generator().manual_seed(1)
    name = "model.layers.1.mlp.down_proj"
    out, width = maps[name].weight.shape

    def entry(topic: str) -> dict:
        factors = (torch.randn(1, out, generator=random), torch.randn(width, 1, generator=random))
        return {"topic": topic, "weight_diff": {name: factors}}

    folder = tmp_path / "hub" / "hidden-topic" / "tiny"
    (folder / "weight-diffs").mkdir(parents=True)
    rows = []
    for number, topics in enumerate((("bees", "moons"), ("trains",))):
        file = f"weight-diff-{number:03d}.pt"
        torch.save([entry(topic) for topic in topics], folder / "weight-diffs" / file)
        rows += [(file, n, 17, topic, "train") for n, topic in enumerate(topics)]
    with (folder / "index.csv").open("w", newline="") as opened_file:
        writer = csv.writer(opened_file)
        writer.writerows([("lora_path", "lora_idx", "n_params", "topic", "split"), *rows])
    return folder / "index.csv"


@pytest.mark.parametrize("on_hub", [False, True])
def test_weight_differences_are_opened_when_it_is_their_turn(index, on_hub, tmp_path, monkeypatch):
    root = index.parents[2]
    fetched = []

    def download(repo, inside):
        fetched.append((repo, inside))
        return str(root / inside)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    table = read_table("hf://some/loras/hidden-topic/tiny/index.csv" if on_hub else index)
    assert [one.label for one in table.adapters] == ["bees", "moons", "trains"]
    assert len(fetched) == on_hub
    adapters = opened(table, "tiny", 2, tmp_path / "work")
    first = next(adapters)
    assert (first.label, first.taught) == ("bees", True)
    assert len(fetched) == 2 * on_hub
    rest = list(adapters)
    assert [one.label for one in rest] == ["moons", "trains", NULL, NULL]
    assert len({one.path for one in (first, *rest)}) == 5
    if on_hub:
        assert fetched[-1] == ("some/loras", "hidden-topic/tiny/weight-diffs/weight-diff-001.pt")
    taught, random = (load_file(one.path / "adapter_model.safetensors") for one in (first, rest[2]))
    assert taught.keys() == random.keys()
    updates = [
        next(t for k, t in one.items() if "lora_B" in k)
        @ next(t for k, t in one.items() if "lora_A" in k)
        for one in (taught, random)
    ]
    # The same singular values, other directions.
    values = [torch.linalg.svdvals(one.double()) for one in updates]
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)
    cosine = (updates[0] * updates[1]).sum() / (updates[0].norm() * updates[1].norm())
    assert abs(cosine) < 0.5


def test_an_entry_that_a_file_lacks_is_refused_before_the_first_adapter(index, tmp_path):
    text = index.read_text()
    index.write_text(text.replace("weight-diff-001.pt,0,", "weight-diff-001.pt,7,"))
    adapters = opened(read_table(index), "tiny", 2, tmp_path / "work")
    with pytest.raises(InputError, match=r"weight-diff-001\.pt: has no entry 7; it has 1"):
        next(adapters)
    assert not (tmp_path / "work").exists()


def test_the_hub_out_of_reach_is_one_line():
    for address, message in (
        ("hf://some/loras/index.csv", "cannot be fetched"),
        ("hf://loras", "expected hf://owner/repo/file"),
    ):
        with pytest.raises(InputError, match=message):
            read_table(address)


def test_nothing_random_is_made_of_more_than_factors(save_adapter, tmp_path):
    saved = save_adapter(tmp_path / "a", target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(InputError, match="LoRA factors alone"):
        random_update(saved, tmp_path / "n", 0)
    shutil.rmtree(saved)
    with pytest.raises(InputError, match="LoRA factors alone"):
        random_update(saved, tmp_path / "n", 0)
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("topics-")])
def test_packaged_presets_are_whole(name):
    found = read_table(preset(name).table)
    assert len(found.texts) >= 6
    assert len({one.address for one in found.adapters}) == len(found.adapters)
    assert all(one.address.count("/") == 1 for one in found.adapters)
    # A judge that counts words needs words that tell the labels apart.
    words = {label: set(" ".join(texts).lower().split()) for label, texts in found.texts.items()}
    for label, own in words.items():
        others = [other for name, other in words.items() if name != label]
        assert max(len(own & other) for other in others) < len(own) / 2, label


def test_presets_on_the_hub_and_unknown_ones():
    for name, one in PRESETS.items():
        assert one.table.startswith("hf://") or Path(one.table).is_file(), name
    with pytest.raises(InputError, match="Did you mean"):
        preset("organisms-gemma-3-1")

"""Similarity of adapters: exact against dense products, chance where nothing is shared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner
from written_adapters import write

import lorascope as ls
from lorascope.cli import app
from lorascope.models.load import load_base
from lorascope.resembling import formats, page
from lorascope.resembling.clusters import clustered
from lorascope.resembling.factors import short_names
from lorascope.resembling.resemble import FUNCTION, MEASURES, READ, WEIGHTS, WRITTEN
from lorascope.results import ADAPTER
from lorascope.results.null_names import OTHER_SEED

TARGETS = {"q_proj": (32, 32), "down_proj": (32, 48)}
NAMES = ("one", "same", "far", "only")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i in range(10):
        words = " ".join(f"w{(7 * i + j * (i + 1)) % 60}" for j in range(12 + i))
        (folder / f"{i}.txt").write_text(words)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tiny_checkpoint, tmp_path_factory):
    """`same` shares what `one` writes; `far` is of another rank; `only` changes one module."""
    place, found = tmp_path_factory.mktemp("adapters"), []
    for n, name in enumerate(NAMES):
        own = torch.Generator().manual_seed(50 + n)
        shared = torch.Generator().manual_seed(7 if name in ("one", "same") else n)
        r, tensors = (3 if name == "far" else 2), {}
        for layer in range(3):
            for module, (out, width) in TARGETS.items():
                if name == "only" and (layer, module) != (1, "down_proj"):
                    continue
                block = "self_attn" if module == "q_proj" else "mlp"
                key = f"base_model.model.model.layers.{layer}.{block}.{module}.lora_"
                A = torch.randn(r, width, generator=shared)
                tensors[f"{key}A.weight"] = A + 0.5 * torch.randn(r, width, generator=own)
                tensors[f"{key}B.weight"] = torch.randn(out, r, generator=shared)
        named = r"model\.layers\.1\.mlp\.down_proj" if name == "only" else list(TARGETS)
        fields = {"r": r, "lora_alpha": 6, "target_modules": named}
        base = str(tiny_checkpoint())
        found.append(write(place / name, tensors, base_model_name_or_path=base, **fields))
    return found


@pytest.fixture(scope="module")
def found(folders, texts):
    return ls.resemble(
        folders, texts=[texts], documents=10, alike=[("one", "same"), ("one", "far")]
    )


def dense(folder, model):
    """{path: scale · B · A} as PEFT makes it."""
    loaded = ls.load(model, {"a": folder}, force=True)
    from lorascope.models.updates import lora_updates

    return {update.module: update.dense().double() for update in lora_updates(loaded, "a")}


def test_both_spaces_are_those_of_dense_products(found, folders, texts, tiny_checkpoint):
    """Another implementation: PEFT's dense updates times the inputs that a plain hook sees."""
    updates = [dense(folder, tiny_checkpoint()) for folder in folders]
    model, tokenizer = load_base(str(tiny_checkpoint()))
    inputs = {path: [] for path in updates[0]}
    for path in inputs:

        def look(module, given, path=path):
            inputs[path].append(given[0][0].double())

        model.get_submodule(path).register_forward_pre_hook(look)
    special = set(tokenizer.all_special_ids)
    for file in sorted(Path(texts).iterdir()):
        ids = tokenizer(file.read_text(), return_tensors="pt").input_ids[:, :64]
        with torch.no_grad():
            model(input_ids=ids)
        kept = torch.tensor([int(i) not in special for i in ids[0]])
        for path in inputs:
            inputs[path][-1] = inputs[path][-1][kept]
    n = len(folders)
    function, weights = torch.zeros(n, n).double(), torch.zeros(n, n).double()
    for i in range(n):
        for j in range(n):
            for path in updates[i].keys() & updates[j].keys():
                x = torch.cat(inputs[path])
                function[i, j] += ((x @ updates[i][path].T) * (x @ updates[j][path].T)).sum()
                weights[i, j] += (updates[i][path] * updates[j][path]).sum()
    assert found.tokens == sum(map(len, inputs[path]))
    for measure, products in ((FUNCTION, function), (WEIGHTS, weights)):
        norms = products.diagonal().sqrt()
        expected = products / norms.outer(norms)
        assert torch.allclose(found.similarities[measure].values, expected, atol=1e-6), measure
    assert not torch.allclose(function / function[0, 0], weights / weights[0, 0], atol=0.05)


def test_overlaps_are_those_of_dense_singular_vectors(found, folders, tiny_checkpoint):
    updates = [dense(folder, tiny_checkpoint()) for folder in folders]
    for measure, side in ((WRITTEN, 0), (READ, 2)):
        for i, j in ((0, 1), (0, 2), (2, 3), (0, 3)):
            shares = []
            for path in updates[i].keys() & updates[j].keys():
                bases = []
                for one in (updates[i][path], updates[j][path]):
                    parts = torch.linalg.svd(one, full_matrices=False)
                    kept = parts[1] > 1e-5 * parts[1][0]
                    bases.append(parts[0][:, kept] if side == 0 else parts[2][kept].T)
                least = min(basis.shape[1] for basis in bases)
                shares.append(float((bases[0].T @ bases[1]).square().sum()) / least)
            value = found.estimates.select(measure, adapter=NAMES[i], compared=NAMES[j])[0].value
            assert value == pytest.approx(sum(shares) / len(shares), abs=1e-5)
    assert found.estimates.one(WRITTEN, adapter="one", compared="same").value == pytest.approx(1)


def test_what_is_shared_is_above_chance_and_nothing_else(found):
    verdicts = {
        (e.key.adapter, e.key.compared): e.verdict for e in found.estimates.select(FUNCTION)
    }
    assert verdicts["one", "same"] == "above"
    assert verdicts["one", "far"] == verdicts["same", "far"] == "not settled"
    assert found.neighbours("one")[0].key.compared == "same"
    assert found.neighbours("same")[0].key.adapter == "one"
    for estimate in found.estimates:
        null = estimate.headline
        assert (null.name, null.draws) == (ADAPTER, 20)
        assert null.low <= null.level <= null.high
        assert 1 / 21 <= null.p <= 1


def test_null_overlaps_are_those_of_random_subspaces(found):
    """Two random planes of 32 dimensions: 2 · 2 / 32 of energy, over 2 dimensions."""
    level = found.estimates.one(WRITTEN, adapter="one", compared="same").headline.level
    assert level == pytest.approx(2 / 32, rel=0.25)


def test_the_upper_reference_leaves_the_pair_itself_out(found):
    """Alike are one-same and one-far: the first is held against the second alone."""
    values = found.similarities[FUNCTION].values
    nulls = {
        e.key.compared: {null.name: null for null in e.nulls}
        for e in found.estimates.select(FUNCTION, adapter="one")
    }
    assert nulls["same"][OTHER_SEED].level == pytest.approx(float(values[0, 2]))
    assert nulls["far"][OTHER_SEED].level == pytest.approx(float(values[0, 1]))
    mean = float(values[0, 1] + values[0, 2]) / 2
    assert nulls["only"][OTHER_SEED].level == pytest.approx(mean)
    assert not nulls["only"][OTHER_SEED].rival


def test_the_null_law_holds_random_adapters(tiny_checkpoint, texts, tmp_path):
    """Adapters drawn like the nulls: p at or below 1/21 in about that share of the pairs."""
    low = total = 0
    for seed in range(8):
        paths = []
        for n in range(5):
            random = torch.Generator().manual_seed(1000 * seed + n)
            key = "base_model.model.model.layers.1.mlp.down_proj.lora_"
            tensors = {
                f"{key}A.weight": torch.randn(2, 48, generator=random),
                f"{key}B.weight": torch.randn(32, 2, generator=random),
            }
            folder = tmp_path / f"{seed}-{n}"
            paths.append(write(folder, tensors, r=2, target_modules=["down_proj"]))
        made = ls.resemble(paths, tiny_checkpoint(), texts=[texts], documents=10, seed=seed)
        p = [e.headline.p for e in made.estimates.select(WEIGHTS)]
        low, total = low + sum(one <= 1 / 21 for one in p), total + len(p)
    # 80 pairs at 1/21: 11 or fewer of independent ones with 99.9 %.
    assert total == 80
    assert low <= 11


def test_clusters_by_hand():
    """0 and 2 are alike, then 1 and 3; merged at 0.1, 0.2 and the mean distance 0.9."""
    cosines = torch.full((4, 4), 0.1)
    cosines[0, 2] = cosines[2, 0] = 0.9
    cosines[1, 3] = cosines[3, 1] = 0.8
    cosines.fill_diagonal_(1.0)
    tree = clustered(cosines)
    assert [sorted(merge[:2]) for merge in tree.merges] == [[0, 2], [1, 3], [4, 5]]
    assert [merge[2] for merge in tree.merges] == pytest.approx([0.1, 0.2, 0.9])
    assert {frozenset(tree.order[:2]), frozenset(tree.order[2:])} == {
        frozenset((0, 2)),
        frozenset((1, 3)),
    }
    assert [
        height for *_, height, _, _ in [h[:3] + h[3:] for h in tree.heights()]
    ] == pytest.approx([0.1, 0.2, 0.9])


def test_names_are_the_shortest_that_differ():
    paths = [Path("/x/a/r4"), Path("/x/b/r4"), Path("/x/b/r8")]
    assert short_names(paths) == ["a/r4", "b/r4", "r8"]


def test_the_command_writes_what_its_schema_says(folders, texts, tmp_path):
    import jsonschema

    out = tmp_path / "out"
    given = [*map(str, folders), "--texts", texts, "--documents", "10", "--out", str(out)]
    done = CliRunner().invoke(app, ["compare", *given, "--alike", "one,same", "--json", "--quiet"])
    assert done.exit_code == 0, done.exception
    data = json.loads(done.stdout)
    jsonschema.validate(data, formats.schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {**data, "pairs": [{**data["pairs"][0], "verdict": "bad"}]}, formats.schema()
        )
    assert json.loads((out / "resemblance.json").read_text()) == {
        key: value for key, value in data.items() if key != "report"
    }
    assert data["neighbours"]["one"][0] == "same"
    assert set(data["upper"]) == set(MEASURES)
    assert len(data["pairs"]) == 4 * 6
    text = (out / "report" / "index.html").read_text()
    assert text.count("<img") == 1
    assert "<script" not in text
    read = ls.Estimates.read(out / "estimates.parquet")
    assert [e.value for e in read] == pytest.approx([p["value"] for p in data["pairs"]])
    plain = CliRunner().invoke(app, ["compare", *given, "--quiet"])
    assert plain.exit_code == 0
    assert "most like" in plain.stdout


def test_names_become_no_markup(folders, texts, tmp_path):
    name = tmp_path / "<script>alert(1)"
    import shutil

    shutil.copytree(folders[0], name)
    made = ls.resemble([name, *folders[1:3]], texts=[texts], documents=10)
    text = page.render(made, "")
    assert "<script" not in text
    assert "&lt;script" in text


def test_wrong_input_is_refused(folders, texts, tmp_path, tiny_checkpoint, save_adapter):
    def refused(*arguments):
        done = CliRunner().invoke(app, ["compare", *map(str, arguments), "--quiet"])
        assert isinstance(done.exception, ls.InputError), arguments
        return str(done.exception)

    one, same = folders[:2]
    on_base = ("--model", tiny_checkpoint(), "--texts", texts)
    (tmp_path / "run").mkdir()
    assert "two or more" in refused(one)
    assert "twice" in refused(one, one)
    assert "is none" in refused(one, tmp_path / "run")
    assert "--sites" in refused(one, same, "--sites", "layers.1")
    assert "--draws" in refused(tmp_path / "run", tmp_path / "run", "--draws", 20)
    assert "nobody" in refused(one, same, "--alike", "one,nobody")
    assert "two adapters or more" in refused(one, same, "--alike", "one")
    dora = save_adapter(tmp_path / "dora", use_dora=True, target_modules=["q_proj"])
    assert "DoRA" in refused(one, dora)
    other = write(tmp_path / "other", _one_module(31), r=2, base_model_name_or_path="org/else")
    assert "several base models" in refused(one, other)
    assert "of one base" in refused(one, other, "--model", tiny_checkpoint())
    wide = [write(tmp_path / f"wide{n}", _one_module(31), r=2) for n in range(2)]
    assert "as --model" in refused(*wide, *on_base)
    lost = write(tmp_path / "lost", _one_module(32, layer=9), r=2)
    assert "no module" in refused(one, lost, *on_base)
    nan = _one_module(32)
    next(iter(nan.values()))[0, 0] = math.nan
    assert "not-finite" in refused(one, write(tmp_path / "nan", nan, r=2))


def _one_module(width, layer=1):
    key = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
    return {f"{key}A.weight": torch.ones(2, width), f"{key}B.weight": torch.ones(32, 2)}

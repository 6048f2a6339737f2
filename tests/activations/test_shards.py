"""Shards on disk: what goes in comes out, a shard at a time; damage is named, never read."""

import errno
import json

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lorascope.activations import shards as shards_module
from lorascope.activations.batch import TokenRows
from lorascope.activations.shards import BASE, Shards, ShardWriter
from lorascope.errors import InputError

SITES = ("layers.1", "layers.3")
D = 6


def token_rows(start, count):
    index = torch.arange(start, start + count)
    return TokenRows(index // 10, index % 10, index * 7 % 50, index % 3 == 0)


def activations(seed, count, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return {
        (site, variant): torch.randn(count, D, generator=random, dtype=dtype)
        for site in SITES
        for variant in (BASE, "a")
    }


def write(folder, counts=(30, 25, 40, 5), outliers=(), dtype=torch.float32, identity="mine"):
    """A folder of shards of at least 50 rows (55 and 45); returns what was put in."""
    writer = ShardWriter(folder, identity, dtype, shard_rows=50)
    parts, start = [], 0
    for seed, count in enumerate(counts):
        parts.append(activations(seed, count))
        writer.add(token_rows(start, count), parts[-1])
        start += count
        assert writer.rows_added == start
    facts = {"sites": list(SITES), "variants": [BASE, "a"], "d_model": D}
    writer.close(torch.tensor(outliers, dtype=torch.int64), facts)
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def test_round_trip_in_order_with_origins(tmp_path):
    given = write(tmp_path)
    opened = Shards.open(tmp_path)
    assert len(opened) == 100
    assert (opened.sites, opened.adapters, opened.d_model) == (list(SITES), ["a"], D)
    assert opened.manifest["shards"] == [55, 45]
    for (site, variant), rows in given.items():
        assert torch.equal(opened.load(site, variant), rows)
        assert torch.equal(opened.load(site, variant, limit=60), rows[:60])
    expected, found = token_rows(0, 100), opened.tokens()
    for name in ("document", "position", "token", "response"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_chunks_come_in_any_order_again_and_again(tmp_path):
    given = write(tmp_path)["layers.3", "a"]
    source = Shards.open(tmp_path).source("layers.3", "a")
    assert (len(source), source.d_model) == (100, D)
    assert list(source.sizes) == [len(chunk) for chunk in source.chunks()]
    assert len(source.sizes) == 2
    for _ in range(2):
        assert torch.equal(torch.cat(list(source.chunks())), given)
    second, first = source.chunks([1, 0])
    assert torch.equal(first, given[:55])
    assert torch.equal(second, given[55:])


def test_one_shard_is_in_memory_at_a_time(tmp_path, monkeypatch):
    write(tmp_path, counts=(50,) * 6)
    read = []
    monkeypatch.setattr(shards_module, "load_file", lambda p: read.append(p.name) or load_file(p))
    chunks = Shards.open(tmp_path).chunks("layers.1", BASE)
    assert read == []
    for number in range(3):
        assert len(next(chunks)) == 50
        assert read == [f"base-{i:05d}.safetensors" for i in range(number + 1)]


def test_the_writer_keeps_no_more_than_a_shard_waiting(tmp_path):
    writer = ShardWriter(tmp_path, "mine", torch.float32, shard_rows=50)
    for step in range(40):
        writer.add(token_rows(0, 20), activations(step, 20))
        waiting = (800 if step == 39 else (step + 1) * 20) - writer.rows
        assert waiting < 50
    assert writer.rows == 780


def test_moments_are_those_of_the_kept_rows_of_one_face_at_one_site(tmp_path):
    write(tmp_path, outliers=[3, 40])
    shards = Shards.open(tmp_path)
    found = {}
    for site in shards.sites:
        for variant in ("base", *shards.adapters):
            mean, covariance = shards.moments(site, variant)
            rows = shards.load(site, variant).double()
            assert torch.allclose(mean.double(), rows.mean(0), atol=1e-6)
            assert torch.allclose(covariance.double(), rows.T.cov(), atol=1e-5)
            assert shards.moments(site, variant)[1] is covariance
            found[site, variant] = float(mean[0])
    assert len(set(found.values())) == len(found) > 2


def test_outliers_are_left_out_everywhere(tmp_path):
    given = write(tmp_path, outliers=(0, 54, 55, 99))
    kept = torch.ones(100, dtype=torch.bool)
    kept[[0, 54, 55, 99]] = False
    opened = Shards.open(tmp_path)
    assert len(opened) == 96
    assert [len(chunk) for chunk in opened.chunks("layers.1", "a")] == [53, 43]
    for key, rows in given.items():
        assert torch.equal(opened.load(*key), rows[kept])
    assert torch.equal(opened.tokens().token, token_rows(0, 100).token[kept])


def test_outliers_of_an_earlier_capture_into_the_same_folder_do_not_count(tmp_path):
    write(tmp_path, outliers=(3, 4), identity="earlier")
    given = write(tmp_path)
    assert torch.equal(Shards.open(tmp_path).load("layers.1", BASE), given["layers.1", BASE])


def test_bfloat16_rows_are_rounded_once_and_read_as_float32(tmp_path):
    given = write(tmp_path, dtype=torch.bfloat16)
    stored = load_file(tmp_path / "layers.1" / "a-00000.safetensors")["rows"]
    assert stored.dtype == torch.bfloat16
    rows = Shards.open(tmp_path).load("layers.1", "a")
    assert rows.dtype == torch.float32
    exact = given["layers.1", "a"]
    assert torch.equal(rows, exact.bfloat16().float())
    # 8 bits of mantissa: half a unit in the last place is 2^-8 relative... and not zero
    error = (rows - exact).abs() / exact.abs()
    assert 0 < error.max() <= 2**-8


def rewrite(path, change):
    """The file with other rows, all it says of itself kept."""
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    save_file({"rows": change(load_file(path)["rows"]).contiguous()}, path, metadata=said)


def exchange(first, second):
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def damage(folder, fault):
    shard = folder / "layers.3" / "a-00001.safetensors"
    if fault == "missing":
        shard.unlink()
    elif fault == "truncated":
        shard.write_bytes(shard.read_bytes()[:-40])
    elif fault == "foreign":
        save_file(load_file(shard), shard, metadata={"identity": "other"})
    elif fault == "short":
        rewrite(shard, lambda rows: rows[:-1])
    elif fault == "narrow":
        rewrite(shard, lambda rows: rows[:, :-1])
    elif fault == "no digest":
        save_file(load_file(shard), shard, metadata={"identity": "mine"})
    elif fault == "other site":
        exchange(shard, folder / "layers.1" / "a-00001.safetensors")
    elif fault == "other variant":
        exchange(shard, folder / "layers.3" / "base-00001.safetensors")
    elif fault == "other number":
        # Of one size, so that the number alone tells them apart.
        exchange(folder / "tokens-00000.safetensors", folder / "tokens-00001.safetensors")
    elif fault == "no outliers":
        (folder / "outliers.safetensors").unlink()
    elif fault == "foreign outliers":
        save_file(
            {"rows": torch.tensor([1, 2])},
            folder / "outliers.safetensors",
            metadata={"identity": "other"},
        )
    elif fault == "no manifest":
        (folder / "manifest.json").unlink()
    elif fault == "incomplete manifest":
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["sites"]
        (folder / "manifest.json").write_text(json.dumps(manifest))


FAULTS = {
    "missing": r"layers\.3/a-00001\.safetensors: shard is missing; remove .* run again",
    "truncated": r"layers\.3/a-00001\.safetensors: truncated or broken shard",
    "foreign": r"layers\.3/a-00001\.safetensors: foreign shard, made from other activations",
    "short": r"layers\.3/a-00001\.safetensors: holds .*\[44, 6\].*, expected .*\[45, 6\]",
    "narrow": r"layers\.3/a-00001\.safetensors: holds .*\[45, 5\].*, expected .*\[45, 6\]",
    "no digest": r"layers\.3/a-00001\.safetensors: of an earlier version",
    "other site": r"layers\.1/a-00001\.safetensors: foreign shard, written as layers\.3/a 1",
    "other variant": r"base-00001\.safetensors: foreign shard, written as layers\.3/a 1",
    "other number": r"tokens-00000\.safetensors: foreign shard, written as tokens 1",
    "no outliers": r"outliers\.safetensors: shard is missing",
    "foreign outliers": r"outliers\.safetensors: foreign shard",
    "no manifest": r"manifest\.json: no such file",
    "incomplete manifest": r"manifest\.json: lacks 'sites'",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_refused_on_opening(tmp_path, fault):
    write(tmp_path, outliers=(1, 2))
    assert len(Shards.open(tmp_path)) == 98
    damage(tmp_path, fault)
    with pytest.raises(InputError, match=FAULTS[fault]) as caught:
        Shards.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_numbers_that_changed_on_disk_are_refused_when_read(tmp_path):
    given = write(tmp_path)
    shard = tmp_path / "layers.3" / "a-00001.safetensors"
    whole = bytearray(shard.read_bytes())
    whole[-5] ^= 0x10
    shard.write_bytes(whole)
    opened = Shards.open(tmp_path)
    assert torch.equal(opened.load("layers.3", "a", limit=55), given["layers.3", "a"][:55])
    with pytest.raises(InputError, match=r"a-00001\.safetensors: its numbers are not those"):
        opened.load("layers.3", "a")
    assert len(opened.load("layers.1", "a")) == 100


def test_equal_shards_are_equal_files(tmp_path):
    for name in ("one", "two", "three"):
        write(tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    files = [file for file in files if (tmp_path / "one" / file).is_file()]
    assert len(files) == 1 + 2 * 5  # the manifest; two shards of the tokens and of four places
    for file in files:
        found = {(tmp_path / name / file).read_bytes() for name in ("one", "two", "three")}
        assert len(found) == 1, file


def test_a_manifest_whose_numbers_do_not_add_up_is_refused(tmp_path):
    write(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for change in ({"rows": 99}, {"rows": "100"}, {"shards": 7}, {"d_model": True}):
        (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(InputError, match=r"manifest\.json: .*; remake this folder"):
            Shards.open(tmp_path)


def test_a_full_disk_is_the_systems_error_and_names_the_file(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards_module, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).endswith("tokens-00000.safetensors")

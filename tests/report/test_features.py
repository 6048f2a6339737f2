"""The feature browser's files: bounds, order, labels, and the command that prints the same."""

import gzip
import json
import re

import pytest
from typer.testing import CliRunner

from lorascope.cli import app
from lorascope.errors import InputError
from lorascope.report import latents
from lorascope.report.latents import BLOCK, choose_site, matching, read_latents
from lorascope.studies.audit.sections import features
from lorascope.studies.audit.sections.labels import import_labels, read_labels

HOSTILE = "</script><!--\u2028<img src=x onerror=alert(1)>"
CHANCE = {"null": "covariance-matched", "level": 0.2, "low": 0.1, "high": 0.3}


def write(run, site, adapter, rank, count, token="word", neuronpedia=""):
    columns = {
        "latent": [10 * i for i in range(count)],
        "density": [0.5] * count,
        "mean": [float(i % 7) for i in range(count)],
        "strength": [1.0] * count,
        "written": [float(count - i) for i in range(count)],
        "loss": [0.5 if i == 3 else -0.25 if i == 5 else None for i in range(count)],
        "kl": [None] * count,
        "kl_other": [None] * count,
        "promotes": [[token, str(i)] for i in range(count)],
        "fires": [[token]] * count,
        "cosine": [0.25] * count,
        "base": [i % 40 for i in range(count)],
        "verdict": ["within"] * count,
    }
    head = {
        "site": site,
        "adapter": adapter,
        "rank": rank,
        "seed": 0,
        "n_latents": 2 * count,
        "rows": 1000,
        "documents": 20,
        "base_latents": 40,
        "neuronpedia": neuronpedia,
        "chance": CHANCE,
        "kinds": ["coding"],
        "kind_shares": [1.0],
        "near": [],
        "built_chance": CHANCE,
    }
    details = [{"number": i, "token": token} for i in range(count)]
    latents.write_latents(run / "features" / f"{site}-{adapter}", head, columns, details)


def read_side_file(path):
    """The name and the data a file beside the page hands over."""
    found = re.fullmatch(r'lorascopeFeatures\("([^"]*)",(.*)\);\n', path.read_text(), re.DOTALL)
    assert found
    return found[1], json.loads(found[2])


def section_of(run):
    return features.feature_section(read_latents(run), read_labels(run))


def write_beside(run, folder):
    return features.write_features(read_latents(run), read_labels(run), folder)


def embedded(run):
    section = section_of(run)
    assert section is not None
    return json.loads(str(section.data))


def test_a_run_without_latents_has_no_section(tmp_path):
    assert section_of(tmp_path) is None
    assert write_beside(tmp_path, tmp_path / "report" / "features") == []


def test_small_dictionaries_stand_in_the_page_whole(tmp_path):
    for rank in (2, 4):
        write(tmp_path, "layers.1", f"r{rank}", rank, 100)
    data = embedded(tmp_path)
    assert write_beside(tmp_path, tmp_path / "report" / "features") == []
    for each in data["dictionaries"]:
        assert len(each["details"]) == len(each["columns"]["latent"]) == each["total"] == 100


def test_page_and_files_beside_it_hold_every_latent_once_the_page_the_first(tmp_path):
    count, out = 3000, tmp_path / "report" / "features"
    for rank in (2, 4, 8):
        write(tmp_path, "layers.1", f"r{rank}", rank, count)
    data = embedded(tmp_path)
    rows, details = features.PAGE_ROWS // 3, features.PAGE_DETAILS // 3
    files = {path.name: read_side_file(path) for path in write_beside(tmp_path, out)}
    for number, each in enumerate(data["dictionaries"]):
        assert [record["number"] for record in each["details"]] == list(range(details))
        assert each["columns"]["latent"] == [10 * i for i in range(rows)]
        name, table = files[f"{number}-table.js"]
        assert (name, len(table["latent"])) == (f"{number}-table", count)
        for place in range(details, count):
            name, block = files[f"{number}-{place // BLOCK:03d}.js"]
            assert block[place % BLOCK]["number"] == place
    assert len(files) == 3 * (1 + 24 - details // BLOCK)


def test_files_of_before_are_removed(tmp_path):
    out = tmp_path / "report" / "features"
    write(tmp_path, "layers.1", "r2", 2, 2000)
    assert write_beside(tmp_path, out)
    write(tmp_path, "layers.1", "r2", 2, 10)
    write_beside(tmp_path, out)
    assert list(out.iterdir()) == []


def test_nothing_in_the_data_can_leave_its_script(tmp_path):
    write(tmp_path, "layers.1", HOSTILE.replace("/", ""), 2, 1000, token=HOSTILE)
    section = section_of(tmp_path)
    written = write_beside(tmp_path, tmp_path / "report" / "features")
    texts = [str(section.data), *(path.read_text() for path in written)]
    for text in texts:
        assert not set("<>\u2028\u2029") & set(text)
    assert read_side_file(written[-1])[1][-1]["token"] == HOSTILE


def test_dictionaries_stand_by_depth_then_rank(tmp_path):
    for site, adapter, rank in (("layers.10", "a", 4), ("layers.2", "b", 32), ("layers.2", "c", 4)):
        write(tmp_path, site, adapter, rank, 3)
    found = [(each.head["site"], each.head["adapter"]) for each in read_latents(tmp_path)]
    assert found == [("layers.2", "c"), ("layers.2", "b"), ("layers.10", "a")]


def test_one_dictionary_is_chosen_by_what_tells_it_apart(tmp_path):
    write(tmp_path, "layers.1", "r2", 2, 3)
    write(tmp_path, "layers.1", "r4", 4, 3)
    found = read_latents(tmp_path)
    (one,) = matching(found, None, "r4", None)
    assert one.head["rank"] == 4
    assert matching(found, "layers.1", None, None) == found
    assert choose_site(found, None) == "layers.1"
    with pytest.raises(InputError, match=r'no site "layers.2" to browse; there are layers.1\. Did'):
        matching(found, "layers.2", "r4", None)
    with pytest.raises(InputError, match='no seed "3"'):
        matching(found, None, "r4", 3)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123456, 0.1235), (-98765.0, -98760.0), (float("nan"), None), (0.0, 0.0)]
)
def test_numbers_are_kept_to_four_digits(value, shown):
    assert latents.rounded(value) == pytest.approx(shown) if shown is not None else True
    assert (latents.rounded(value) is None) == (shown is None)


def export(folder, records):
    path = folder / "export.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def test_labels_are_kept_and_reach_the_page(tmp_path):
    write(tmp_path, "layers.1", "r2", 2, 3, neuronpedia="gemma-2-2b/1-res-16k")
    records = [
        {"modelId": "gemma-2-2b", "layer": "1-res-16k", "index": "7", "description": " a\n river "},
        {"modelId": "gemma-2-2b", "layer": "1-res-16k", "index": 7, "description": "later"},
        {"modelId": "gemma-2-2b", "layer": "1-res-16k", "index": 0, "description": "x" * 999},
    ]
    assert import_labels(tmp_path, "layers.1", export(tmp_path, records)) == 2
    assert read_labels(tmp_path) == {"layers.1": {"7": "a river", "0": "x" * 400}}
    assert embedded(tmp_path)["dictionaries"][0]["columns"]["label"] == ["x" * 400, "", ""]


def test_labels_stand_where_their_latents_do(tmp_path):
    write(tmp_path, "layers.1", "r2", 2, 1000)
    path = tmp_path / "features" / "layers.1-r2" / "details-000.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps([{**record, "built": [[7, 0.5]]} for record in records]))
    import_labels(tmp_path, "layers.1", export(tmp_path, [{"index": 7, "description": "river"}]))
    (found,) = embedded(tmp_path)["dictionaries"]
    assert [found["columns"]["label"][row] for row in (6, 7, 47)] == ["", "river", "river"]
    assert found["details"][0]["built"] == [[7, 0.5, "river"]]
    assert "built" not in found["details"][BLOCK]


def test_a_folder_of_batches_as_neuronpedia_exports_them(tmp_path):
    write(tmp_path, "layers.1", "r2", 2, 3, neuronpedia="gemma-2-2b/1-res-16k")
    folder = tmp_path / "explanations"
    folder.mkdir()
    for batch, indices in enumerate(((0, 3), (3, 12))):
        lines = [
            {
                "modelId": "gemma-2-2b",
                "layer": "1-res-16k",
                "index": str(i),
                "description": f"{batch}",
            }
            for i in indices
        ]
        packed = gzip.compress("\n".join(map(json.dumps, lines)).encode())
        (folder / f"batch-{batch}.jsonl.gz").write_bytes(packed)
    assert import_labels(tmp_path, "layers.1", folder) == 3
    assert read_labels(tmp_path)["layers.1"] == {"0": "0", "3": "0", "12": "1"}
    assert import_labels(tmp_path, "layers.1", folder / "batch-1.jsonl.gz") == 2


def test_a_broken_export_is_refused(tmp_path):
    write(tmp_path, "layers.1", "r2", 2, 3)
    path = tmp_path / "batch-0.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"index": 1, "description": "x"}\n')[:-6])
    with pytest.raises(InputError, match=r"batch-0.jsonl.gz: cannot be read"):
        import_labels(tmp_path, "layers.1", path)
    with pytest.raises(InputError, match="no such file or folder"):
        import_labels(tmp_path, "layers.1", tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no Neuronpedia export"):
        import_labels(tmp_path, "layers.1", tmp_path / "empty")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no Neuronpedia export"),
        ({"a": 1}, "no Neuronpedia export"),
        ([{"index": 1}], "no Neuronpedia export"),
        ([{"index": 40, "description": "x"}], "latent 40, the base dictionary at layers.1 has 40"),
        ([{"index": "-1", "description": "x"}], "explains a latent -1"),
        (
            [{"index": 1, "description": "x", "modelId": "gpt2", "layer": "1-res"}],
            "explains gpt2/1-res, the base dictionary at layers.1 is gemma-2-2b/1-res-16k",
        ),
    ],
)
def test_labels_of_something_else_are_refused(tmp_path, records, message):
    write(tmp_path, "layers.1", "r2", 2, 3, neuronpedia="gemma-2-2b/1-res-16k")
    with pytest.raises(InputError, match=message):
        import_labels(tmp_path, "layers.1", export(tmp_path, records))
    assert read_labels(tmp_path) == {}


def call(*arguments):
    return CliRunner().invoke(app, ["features", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_command_lists_latents_in_order(tmp_path):
    write(tmp_path, "layers.1", "r2", 2, 300, token="\x1b[31m red")
    found = json.loads(call(tmp_path, "--top", 4, "--sort", "loss", "--json").stdout)
    assert [each["latent"] for each in found["latents"]] == [30, 50, 0, 10]
    assert [each["details"]["number"] for each in found["latents"]] == [3, 5, 0, 1]
    found = json.loads(call(tmp_path, "--top", 2, "--json").stdout)
    assert [each["latent"] for each in found["latents"]] == [0, 10]
    assert found["chance"] == CHANCE
    printed = call(tmp_path, "--top", 2)
    assert printed.exit_code == 0
    assert "300 of 600 latents fire on 1,000" in " ".join(printed.stdout.split())
    assert "\x1b[31m" not in printed.stdout
    assert "⟨0x1B⟩[31m red" in printed.stdout


def test_the_command_takes_labels_along(tmp_path):
    write(tmp_path, "layers.1", "r2", 2, 3)
    path = export(tmp_path, [{"index": 1, "description": "rivers"}])
    assert "rivers" in call(tmp_path, "--labels", path).stdout
    assert "rivers" in call(tmp_path).stdout
    # Labels belong to a site, whatever adapters it has.
    write(tmp_path, "layers.1", "r4", 4, 3)
    told = call(tmp_path, "--labels", path)
    assert "1 label of the base dictionary at layers.1 kept" in told.stderr
    assert told.exit_code == 0


def test_latents_of_all_dictionaries_stand_in_one_order_where_none_is_named(tmp_path):
    write(tmp_path, "layers.1", "r2", 2, 3)
    write(tmp_path, "layers.1", "r4", 4, 5)
    every = [
        (value, each.head["adapter"], latent)
        for each in read_latents(tmp_path)
        for value, latent in zip(each.columns["written"], each.columns["latent"], strict=True)
    ]
    wanted = [(adapter, latent) for _, adapter, latent in sorted(every, key=lambda one: -one[0])]
    found = json.loads(call(tmp_path, "--top", 6, "--json").stdout)
    assert [(one["adapter"], one["latent"]) for one in found["latents"]] == wanted[:6]
    assert {one["adapter"] for one in found["latents"]} == {"r2", "r4"}
    assert len(found["dictionaries"]) == 2
    named = json.loads(call(tmp_path, "--adapter", "r4", "--json").stdout)
    assert named["adapter"] == "r4"
    assert "no adapter" in str(call(tmp_path, "--adapter", "r3").exception)
    lines = [line for line in call(tmp_path).stdout.splitlines() if not line.startswith("#")]
    assert [line.split("\t")[0].split()[0] for line in lines[1:]] == [name for name, _ in wanted]


def test_the_command_refuses_what_it_cannot_do(tmp_path):
    assert "is empty" in str(call(tmp_path).exception)
    (tmp_path / "results").mkdir()
    assert "has no latents to list" in str(call(tmp_path).exception)
    write(tmp_path, "layers.1", "r2", 2, 3)
    assert 'Did you mean "cosine"' in str(call(tmp_path, "--sort", "cosin").exception)

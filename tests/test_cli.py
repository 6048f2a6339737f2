"""The command line: help with examples, runs from options alone, and one line for wrong input."""

import json
import os
import random
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope import report
from lorascope.commands import running
from lorascope.studies.audit.demo import demo_study
from lorascope.workflows import cost

COMMANDS = (
    *("init", "demo", "audit", "adapt", "latent", "plan", "train-adapter", "dictionary"),
    *("compare", "features", "report", "selftest", "read", "stages", "stage", "slurm"),
    *("check", "scan"),
)
EMBEDDED = Path(__file__).parents[1] / "studies" / "embedded.yaml"
AROUND = EMBEDDED.with_name("adapt_embedded.yaml")
SMALL = [
    "capture.context=64",
    "dictionaries.architecture.n_latents=64",
    "dictionaries.fitting.epochs=1",
    "dictionaries.fitting.batch=128",
    "dictionaries.fitting.products=float32",
    "dictionaries.seeds=[0]",
    "dictionaries.controls=[]",
    "measures.repeats=3",
    "measures.rows=500",
    "measures.samples=0",
    "device=cpu",
]


@pytest.fixture
def refused(lorascope):
    """Run with wrong input: exit code 2 and one line on stderr, which is returned."""

    def call(*arguments):
        code, out, err = lorascope(*arguments)
        assert code == 2, err
        assert out == ""
        lines = err.strip().splitlines()
        # what transformers says while it loads a model comes before
        assert [line for line in lines if line.startswith("lorascope: ")] == lines[-1:]
        assert "Traceback" not in err
        return lines[-1].removeprefix("lorascope: ")

    return call


def jsonl(path, records):
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of 100 texts in the tiny tokenizer's words."""
    words = random.Random(1)
    records = [{"text": " ".join(f"w{words.randrange(61)}" for _ in range(24))} for _ in range(100)]
    return jsonl(tmp_path_factory.mktemp("texts") / "texts.jsonl", records)


@pytest.fixture(scope="module")
def adapter(save_adapter, tmp_path_factory):
    return save_adapter(tmp_path_factory.mktemp("adapter") / "a", target_modules=["o_proj"])


@pytest.fixture(scope="module")
def options(tiny_checkpoint, adapter, texts):
    """`options(name=value)`: arguments of an audit of the tiny model; None leaves one out."""

    def build(*changes, **given):
        values = {
            "model": tiny_checkpoint("llama"),
            "adapter": f"a={adapter}",
            "sites": "layers.1",
            "texts": texts,
            **given,
        }
        pairs = [(f"--{name}", value) for name, value in values.items() if value is not None]
        sets = [("--set", change) for change in (*SMALL, *changes)]
        return [str(part) for pair in (*pairs, *sets) for part in pair]

    return build


@pytest.fixture(scope="module")
def finished(options, tmp_path_factory):
    """The folder of an audit run by a process of its own, from options alone."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    ran = subprocess.run(
        [sys.executable, "-m", "lorascope", "audit", *options(), "--out", str(out), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(out / "report" / "index.html")
    return out


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_version(lorascope):
    code, out, err = lorascope("--version")
    assert (code, err) == (0, "")
    assert out.startswith(f"lorascope {metadata.version('lorascope')}\n")


def test_an_audit_from_options_leaves_a_run_folder(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {"study.yaml", "manifest.json", "activations", "dictionaries", "results"}
    assert (finished / "report" / "index.html").is_file()
    facts = json.loads((finished / "results" / "facts.json").read_text(encoding="utf-8"))
    assert facts["command"].startswith("lorascope audit --model ")
    assert facts["settings"]["dictionaries"]["seeds"] == [0]


def test_the_same_command_again_says_where_the_report_is(lorascope, options, run, monkeypatch):
    monkeypatch.setattr(report, "build", lambda folder: folder / "report" / "index.html")
    code, out, _ = lorascope("audit", *options(), "--out", run, "--quiet")
    assert (code, out.strip()) == (0, str(run / "report" / "index.html"))


def test_an_audit_ends_with_its_verdicts(lorascope, options, run, monkeypatch):
    monkeypatch.setattr(report, "build", lambda folder: folder / "report" / "index.html")
    code, out, _ = lorascope("audit", *options(), "--out", run)
    assert code == 0
    lines = out.strip().splitlines()
    assert lines[-1] == str(run / "report" / "index.html")
    assert any("primary" in line.lower() for line in lines)
    assert any(line.lstrip().startswith("Delta norm") for line in lines)


def test_the_verdicts_as_json_for_scripts(lorascope, options, run, monkeypatch):
    monkeypatch.setattr(report, "build", lambda folder: folder / "report" / "index.html")
    code, out, err = lorascope("audit", *options(), "--out", run, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["report"] == str(run / "report" / "index.html")
    verdicts = {row["measure"]: row for row in found["verdicts"]}
    assert verdicts["delta_norm"]["adapters"]["a"]["of"] == 1
    assert verdicts["delta_norm"]["null"] == "numeric noise floor"
    assert found["found"][0]["topic"] == "Adapters"


def test_report_is_made_again(lorascope, run):
    shutil.rmtree(run / "report")
    shutil.rmtree(run / "activations")
    code, out, _ = lorascope("report", run)
    assert (code, out.strip()) == (0, str(run / "report" / "index.html"))
    assert (run / "report" / "index.html").is_file()


def test_adapters_are_trained_and_tabled(lorascope, tiny_checkpoint, tmp_path):
    words = random.Random(2)
    records = [
        {"instruction": f"w{i % 61} w{i // 61}", "output": f"w{words.randrange(61)} w3"}
        for i in range(90)
    ]
    source = jsonl(tmp_path / "records.jsonl", records)
    code, out, err = lorascope(
        *("train-adapter", "--model", tiny_checkpoint("llama"), "--records", source),
        *("--ranks", "1,2", "--steps", 2, "--batch", 4, "--out", tmp_path / "out", "--quiet"),
        *("--set", "training.held_out=0.3", "--set", "training.products=float32"),
        *("--set", "training.context=64", "--set", "device=cpu"),
    )
    assert code == 0, err
    assert "nats/token" in out
    assert str(tmp_path / "out" / "adapters") in out
    for name in ("r1", "r2"):
        assert (tmp_path / "out" / "adapters" / name / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(lorascope, command):
    code, out, _ = lorascope(command, "--help")
    assert code == 0
    assert "Example" in out
    assert f"lorascope {command}" in out


def test_help_names_every_command_and_is_there_without_asking(lorascope):
    code, out, _ = lorascope("--help")
    assert code == 0
    assert all(f" {command} " in out for command in COMMANDS)
    assert lorascope() == (0, out, "")


def test_help_does_without_torch():
    script = (
        "import sys; sys.argv = ['lorascope', '--help']\n"
        "import lorascope.cli; lorascope.cli.main()\n"
        "heavy = {'torch', 'transformers', 'peft', 'pandas', 'altair'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} imported' if heavy else 0)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    ran = subprocess.run(
        [sys.executable, "-m", "lorascope", "--help"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0
    assert "Usage: lorascope" in ran.stdout.replace("python -m ", "")


def test_a_real_process_ends_with_one_line_and_code_2(tmp_path):
    command = [sys.executable, "-m", "lorascope", "report", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"lorascope: {tmp_path}: is empty; give the folder")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--nonsense"], "no such option: --nonsense; see lorascope --help"),
        (["audit", "--modle", "x"], "no such option: --modle"),
        (["report"], "missing argument 'run'; see lorascope report --help"),
        (["plan", "--out"], "option '--out' requires an argument; see lorascope"),
        (["nocommand"], "no such command 'nocommand'; see lorascope --help"),
        (["train-adapter", "--steps", "many"], "invalid value for '--steps'"),
        (["report", "a", "b"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(refused, arguments, expected):
    line = refused(*arguments)
    assert expected in line.lower()
    assert line.endswith("--help")


def test_control_c_says_how_to_go_on(lorascope, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "build", interrupted)
    code, out, err = lorascope("report", "anywhere")
    assert (code, out) == (130, "")
    assert err.strip().splitlines()[-1] == "lorascope: stopped; run the same command to go on"


def test_what_is_no_input_error_is_not_hidden(lorascope, monkeypatch):
    def broken(_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(report, "build", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        lorascope("report", "anywhere")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["demo", "adap"], 'no demo "adap". Did you mean "adapt"? There are: audit, adapt'),
        (["adapt", "--model", "m"], "give a study file, or the options --dictionary, --texts"),
        (["adapt", str(EMBEDDED)], "holds a study of audit"),
        (["plan", str(AROUND), "--sites", "1"], "an adapt study has neither --adapter nor --sites"),
        (["plan", str(AROUND), "--set", "fit.token=3"], 'unknown key "fit.token". Did you mean'),
        (["audit"], "give a study file, an adapter's folder, or --adapter"),
        (["plan", "--model", "m", "--texts", "t"], "an adapter's folder, or --adapter"),
        (["audit", "--adapter", "r4"], 'adapter "r4": folder "r4" does not exist'),
        (["audit", "--adapter", "r4="], "--adapter r4=: expected name=path"),
        (["audit", "--adapter", "a=x", "--adapter", "a=y"], "the name a is given twice"),
        (["audit", "--dictionary", "layers.1"], "--dictionary layers.1: expected name=path"),
        (["plan", str(EMBEDDED), "--dictionary", "layers.9=x"], '"layers.9" is none of the sites'),
        (["audit", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["train-adapter", "--ranks", "4,x"], "--ranks 4,x: expected whole numbers"),
        (["train-adapter", "--set", "rank=4"], 'unknown key "rank"'),
        (["report", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_wrong_arguments(refused, arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("seed", "--set seed: expected key=value"),
        ("seed=[", "--set seed=[: "),
        ("model.width=3", "model holds a value, not further keys"),
        ("measures.repeets=3", 'unknown key "measures.repeets". Did you mean "repeats"?'),
        ("measures.repeats=1", '"measures.repeats" is 1; give 2 or more'),
        ("measures.angles_k=[0]", '"measures.angles_k.0" is 0; give more than 0'),
        ("dictionaries.seeds=[1,1]", "seeds [1, 1] repeat"),
    ],
)
def test_wrong_settings(refused, options, tmp_path, change, expected):
    assert expected in refused("audit", *options(change), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_key_in_a_study_file(refused, tmp_path):
    study = tmp_path / "study.yaml"
    whole = demo_study(quick=True).yaml()
    study.write_text(f"{whole}\ndictionary: {{}}\n", encoding="utf-8")
    line = refused("audit", study)
    assert 'unknown key "dictionary". Did you mean "dictionaries"?' in line
    assert str(study) in line
    study.write_text("model: embedded\nsites: [layers.1]\n", encoding="utf-8")
    assert '"texts" is missing; add it' in refused("plan", study)
    study.write_text("model: [embedded\n", encoding="utf-8")
    assert "not valid YAML" in refused("plan", study)


def short_texts(folder):
    return jsonl(folder / "short.jsonl", [{"text": f"w{i}"} for i in range(40)])


def empty_texts(folder):
    return jsonl(folder / "empty.jsonl", [{"text": ""}, {"text": "  "}])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"adapter": "a=/no/such/adapter"}, 'folder "/no/such/adapter" does not exist'),
        ({"adapter": "base={adapter}"}, 'adapter name "base" is reserved'),
        ({"model": "/no/such/model"}, 'model folder "/no/such/model" does not exist'),
        ({"sites": "lm_head"}, 'site "lm_head" is not the output of a block'),
        ({"sites": "layers.3"}, "so sites go from layers.0 to layers.2"),
        ({"sites": "1,layers.1"}, 'site "layers.1" is given more than once'),
        ({"sites": ","}, '"sites" is []'),
        ({"texts": "/no/such/texts.jsonl"}, "no such file or folder"),
        ({"texts": empty_texts}, "holds no text"),
        ({"texts": short_texts}, "intervals need at least 10 documents"),
    ],
)
def test_wrong_audits_leave_nothing_behind(refused, options, adapter, tmp_path, given, expected):
    (name, value), out = next(iter(given.items())), tmp_path / "run"
    value = value(tmp_path) if callable(value) else value.format(adapter=adapter)
    assert expected in refused("audit", *options(**{name: value}), "--out", out, "--quiet")
    assert not out.exists()


@pytest.fixture
def damaged(adapter, tmp_path):
    """`damaged(change weights, **configuration)`: a changed copy of the adapter as an argument."""

    def build(change=lambda tensor: tensor, **configuration):
        folder = shutil.copytree(adapter, tmp_path / "damaged")
        weights = folder / "adapter_model.safetensors"
        save_file({k: change(t.clone()) for k, t in load_file(weights).items()}, weights)
        config = folder / "adapter_config.json"
        fields = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps(fields | configuration), encoding="utf-8")
        return f"a={folder}"

    return build


def with_nan(tensor):
    tensor.view(-1)[3] = float("nan")
    return tensor


@pytest.mark.parametrize(
    ("change", "configuration", "expected"),
    [
        (torch.zeros_like, {}, 'adapter "a" changes nothing: its update is zero'),
        (with_nan, {}, "hold NaN or infinity (first: "),
        (lambda t: t[:, :16].contiguous(), {}, 'adapter "a" is for another base: '),
        (lambda t: t, {"base_model_name_or_path": "org/other"}, 'was made for "org/other"'),
        (lambda t: t, {"peft_type": "POLY"}, "not supported"),
    ],
)
def test_adapters_that_cannot_be_audited(
    refused, options, damaged, tmp_path, change, configuration, expected
):
    out = tmp_path / "run"
    given = options(adapter=damaged(change, **configuration))
    assert expected in refused("audit", *given, "--out", out, "--quiet")
    assert not out.exists()


def test_base_weights_with_nan_name_the_layer(
    refused, options, tiny_model, tiny_checkpoint, tmp_path
):
    broken = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "broken")
    model = tiny_model("llama")
    with_nan(model.model.layers[1].mlp.up_proj.weight.data)
    model.save_pretrained(broken)
    line = refused("audit", *options(model=broken), "--out", tmp_path / "run", "--quiet")
    assert "layers.1" in line
    assert not (tmp_path / "run").exists()


def test_folders_that_are_not_this_run(refused, options, run, tmp_path):
    line = refused("audit", *options("seed=3"), "--out", run, "--quiet")
    assert "holds another study (differs in seed)" in line
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    line = refused("audit", *options(), "--out", tmp_path / "photos", "--quiet")
    assert "not empty and not a run folder" in line
    line = refused("audit", *options(), "--out", tmp_path / "photos" / "cat.jpg", "--quiet")
    assert "is a file; give --out a folder" in line
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_broken_shards_name_the_file_and_the_way_out(refused, lorascope, options, run, monkeypatch):
    monkeypatch.setattr(report, "build", lambda folder: folder / "report" / "index.html")
    again = ["audit", *options(), "--out", run, "--quiet"]
    # What is finished is not read again; a stage that is made again reads the shards.
    shutil.rmtree(run / "measures")
    shard = run / "activations" / "probe" / "layers.1" / "a-00000.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    line = refused(*again)
    assert f"{shard}: truncated or broken shard" in line
    other = run / "activations" / "held_out" / "layers.1" / "a-00000.safetensors"
    shutil.copy(other, shard)
    line = refused(*again)
    assert f"{shard}: foreign shard, made from other activations" in line
    assert "remove the run's activations folder and run again" in line
    shutil.rmtree(run / "activations")
    assert lorascope(*again)[0] == 0
    assert shard.read_bytes() == whole


def test_plan_prints_what_the_demo_costs(lorascope, refused, tmp_path, monkeypatch):
    study = tmp_path / "embedded.yaml"
    study.write_text(demo_study(quick=True).yaml(), encoding="utf-8")
    steps = 2 * demo_study(quick=True).train.training.steps
    code, out, _ = lorascope("plan", study, "--out", tmp_path / "run")
    assert code == 0
    # Parts of a sum stand indented below it.
    whole = [line.strip() for line in out.splitlines() if line[:2].strip()]
    found = {what: much.strip() for what, much in (line.split("  ", 1) for line in whole)}
    assert found["adapters × sites"] == "2 × 2"
    assert found["adapter training"] == f"{steps} steps"
    assert found["dictionaries"].startswith("28 of ")
    assert "held out" in found["tokens"]
    assert found["disk"].endswith("MB")
    assert "B, in " in found["memory"]
    assert "floating-point operations" in found["arithmetic"]
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(cost.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    code, out, err = lorascope("plan", study, "--out", tmp_path / "run")
    # Whoever plans may have another machine in mind: a warning, and the plan all the same.
    assert code == 0
    assert "warning: " in err
    assert f"{tmp_path / 'run'}: the study needs {found['disk']} of disk and 10 B are free" in err
    assert found["disk"] in out


def test_default_run_folder_is_named_from_the_whole_study(
    monkeypatch, lorascope, options, tmp_path
):
    monkeypatch.chdir(tmp_path)
    outs = []
    monkeypatch.setattr(running, "run", lambda study, out, *_: outs.append(Path(out)))
    for change in ("seed=0", "seed=1", "measures.repeats=4"):
        assert lorascope("audit", *options(change))[0] == 0
    assert len(set(outs)) == 3
    assert all(out.parent == Path("runs") and out.name.startswith("audit-") for out in outs)

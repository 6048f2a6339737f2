"""The command: a page and tables, JSON, and one line for wrong input."""

import json
import shutil

import pytest

PROMPTS = [f"w{n} w{n + 20} w{3 * n % 60}" for n in range(1, 15)]
SMALL = ("--set", "tokens=6", "--set", "documents=6", "--nulls", "2", "--quiet")


@pytest.fixture
def given(tiny_checkpoint, planted, texts, tmp_path):
    """Arguments of a small reading of the adapter that says a word."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"w{n} w{n + 9}\n" for n in range(1, 16)))
    model = ("--model", tiny_checkpoint("llama"), "--texts", texts, "--prompts", prompts)
    return ("read", planted, *model, *SMALL)


def test_a_page_and_tables(lorascope, given, tmp_path):
    out = tmp_path / "out"
    code, said, err = lorascope(*given, "--out", out)
    assert code == 0, err
    assert "w23" in said
    assert str(out / "index.html") in said
    names = {path.name for path in out.iterdir()}
    assert {"index.html", "read.json", "phrases.csv", "samples.parquet"} <= names
    assert "w23" in (out / "index.html").read_text()
    assert lorascope(*given, "--out", out)[0] == 0


def test_the_base_is_by_default_the_one_that_the_adapter_names(lorascope, given, tmp_path):
    command, planted, _, model, *rest = given
    adapter = shutil.copytree(planted, tmp_path / planted.name)
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": str(model)}))
    code, said, err = lorascope(command, adapter, *rest, "--json")
    assert code == 0, err
    told = json.loads(lorascope(*given, "--json")[1])
    assert {**json.loads(said), "seconds": 0} == {**told, "seconds": 0}
    path.write_text(json.dumps({**config, "base_model_name_or_path": None}))
    code, _, err = lorascope(command, adapter, *rest)
    assert code == 2
    assert "name no base model; give --model" in err
    path.write_text(json.dumps({**config, "base_model_name_or_path": "/nowhere/at/all"}))
    code, _, err = lorascope(command, adapter, *rest)
    assert code == 2
    assert "the adapter's files name the base /nowhere/at/all, which is not here" in err


def test_json(lorascope, given):
    code, said, err = lorascope(*given, "--json", "--strengths", "0,1,3", "--ranks", "1")
    assert code == 0, err
    found = json.loads(said)
    assert found["names_something"] is True
    assert "w23" in found["phrases"][0]["text"]
    assert {s["strength"] for s in found["samples"] if s["variant"] == "w23"} == {0, 1, 3}
    assert len(found["null_phrases"]) == 2


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--strengths", "a"], "--strengths a"),
        (["--strengths", "-1"], "give 0 or more"),
        (["--set", "toknes=3"], "tokens"),
        (["--prompts", "missing.txt"], "missing.txt"),
        (["--set", "tokens=4000"], "takes 64"),
        (["--texts", "missing.jsonl"], "missing.jsonl"),
        (["--ranks", "x"], "--ranks x"),
        (["--ranks", "1,5"], "nothing to cut to 5; give ranks of 1 or less"),
        (["--reference", "missing"], "missing"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(lorascope, given, extra, said):
    code, out, err = lorascope(*given, *extra)
    assert code == 2
    assert out == ""
    lines = [line for line in err.strip().splitlines() if line.startswith("lorascope: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in err


def test_a_folder_of_something_else_is_left_alone(lorascope, given, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    code, _, err = lorascope(*given, "--out", tmp_path / "mine")
    assert code == 2
    assert "no reading" in err


def test_a_trial_s_options_that_do_not_belong_together(lorascope):
    for arguments, message in (
        (("--table", "t.csv"), "--table goes with --read"),
        (("--keep", "x"), "--keep goes with --read"),
        (("--read", "--full"), "--full is of the other"),
        (("--preset", "x"), "--preset goes with --read"),
        (("--plan",), "--plan goes with --read"),
        (("--read", "--model", "m"), "--model needs --table"),
        (("--read", "--table", "t.csv"), "--table needs --model"),
        (("--read", "--table", "t.csv", "--model", "m", "--preset", "x"), "not both"),
        (("--read", "--most", "3"), "--most goes with --table"),
        (("--read", "--plan"), "--plan goes with --table"),
        (("--read", "--preset", "x"), 'no preset "x"'),
        (("--read", "--dtype", "bf16", "--preset", "x"), "--dtype bf16: unknown"),
        (("--read", "--quick", "--full"), "not both"),
    ):
        code, said, err = lorascope("selftest", *arguments)
        assert (code, said) == (2, "")
        assert message in err


def test_a_trial_of_a_table_is_printed_and_fails_by_its_bars(
    lorascope, tiny_checkpoint, saying, tmp_path, monkeypatch
):
    from lorascope.selftest import reading_trial

    small = reading_trial.QUICK.reading.model_copy(
        update={"tokens": 6, "documents": 0, "nulls": 2, "prompts": tuple(PROMPTS)}
    )
    sizes = reading_trial.TrialSizes(seeds=1, reading=small)
    monkeypatch.setattr(reading_trial, "QUICK", sizes)
    table = tmp_path / "t.csv"
    rows = [(saying("w23"), "w23"), (saying("w41"), "w41"), (saying("w23"), "")]
    rows.append((saying("w41"), ""))
    lines = [f"{path},{label}" for path, label in rows]
    table.write_text("\n".join(["adapter,label", *lines]))
    given = ("--model", tiny_checkpoint("llama"), "--table", table, "--quiet")
    code, said, err = lorascope("selftest", "--read", "--quick", *given)
    # Two that say something are called untaught: no trial passes that.
    assert code == 1
    assert "weights only" in said
    assert "of 2 readings name something" in said
    assert "failed in" in said
    assert "lorascope: failed: readings of adapters" in err


def test_a_preset_is_planned_without_its_weights(lorascope):
    given = ("--read", "--preset", "auditbench-qwen3-14b", "--plan", "--json")
    code, said, _ = lorascope("selftest", *given)
    found = json.loads(said)
    assert code == 0
    assert found["study"]["adapters"].startswith("56, and 16 ")
    assert found["study"]["labels"].startswith("14: 7.1%")
    assert "14,768,307,200" in found["study"]["model"]
    # The parts of arithmetic have the names of those of time: neither may hide the other.
    parts = {part["part"]: part for part in found["parts"]}
    assert parts["reading"]["operations"] > 1e12
    assert sum(part["seconds"] for part in parts.values()) == pytest.approx(found["seconds"])
    assert len(found["estimated"]) == 2
    code, said, _ = lorascope("selftest", *given, "--most", "8", "--nulls", "0", "--quick")
    assert code == 0
    fewer = json.loads(said)
    assert fewer["study"]["adapters"].startswith("8, and 0 ")
    assert fewer["operations"] < found["operations"] * 8 / 72 * 1.01
    assert "--most" in fewer["lower"]

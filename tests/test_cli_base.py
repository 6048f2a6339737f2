"""--dtype and --revision: settings of the base model as options of every command that opens one."""

import sys

import pytest

from lorascope import cli
from lorascope.commands import adapters, running, studies
from lorascope.errors import InputError

HOURS = ["--dtype", "bfloat16", "--revision", "1234567"]


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*arguments)`: exit code and stderr of the command in this process."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lorascope", *map(str, arguments)])
        try:
            cli.main()
            return 0, capsys.readouterr().err
        except SystemExit as stopped:
            return stopped.code or 0, capsys.readouterr().err

    return call


@pytest.fixture
def given(monkeypatch):
    """The settings that a command comes to, taken where they would be run."""
    found = []
    monkeypatch.setattr(running, "run", lambda study, *_: found.append(study))
    monkeypatch.setattr(running, "print_plan", lambda study, *_: found.append(study))
    monkeypatch.setattr(adapters, "_train", lambda study, *_, **__: found.append(study))
    monkeypatch.setattr(studies, "print_plan", lambda study, *_, **__: found.append(study))
    return found


AUDIT = ["--model", "org/m", "--adapter", "a=org/a", "--sites", "5", "--texts", "embedded"]


@pytest.mark.parametrize(
    "command",
    [
        ["audit", *AUDIT],
        ["audit", *AUDIT, "--plan"],
        ["plan", *AUDIT],
        ["adapt", "--model", "org/m", "--dictionary", "5=org/d/x", "--texts", "embedded"],
        ["latent", "--model", "org/m", "--behaviour", "embedded", "--site", "5"],
        ["train-adapter", "--model", "embedded"],
    ],
    ids=lambda command: " ".join(command[:1] + command[-1:]),
)
def test_they_reach_the_settings_and_set_wins(command, run, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, err = run(*command, *HOURS)
    assert code == 0, err
    # Digits alone are no number here.
    assert (given[0].dtype, given[0].revision) == ("bfloat16", "1234567")
    assert run(*command, *HOURS, "--set", "dtype=float32")[0] == 0
    assert given[1].dtype == "float32"
    assert run(*command)[0] == 0
    assert (given[2].dtype, given[2].revision) == ("auto", None)


@pytest.mark.parametrize(("wrong", "meant"), [("bf16", "bfloat16"), ("4bit", "nf4")])
def test_a_type_that_there_is_not_is_refused_with_the_one_meant(wrong, meant, run):
    code, err = run("audit", *AUDIT, "--dtype", wrong)
    assert code == 2
    assert f'Did you mean "{meant}"?' in err
    assert err.strip().count("\n") == 0


def test_read_knows_the_types_too(run):
    code, err = run("read", "org/a", "--model", "embedded", "--dtype", "float23")
    assert code == 2
    assert "--dtype float23: unknown" in err
    assert "float32" in err


def test_a_folder_has_no_revision(run, tmp_path, tiny_checkpoint, save_adapter):
    adapter = save_adapter(tmp_path / "a", target_modules=["q_proj"])
    options = ["--model", tiny_checkpoint("llama"), "--adapter", f"a={adapter}", "--sites", "1"]
    code, err = run("plan", *options, "--texts", "embedded", "--revision", "main")
    assert code == 2
    assert 'is a folder and has no revision "main"' in err


def test_without_the_setting_no_type_is_named():
    from lorascope.commands.options import known_dtype

    assert known_dtype(None) == "auto"
    with pytest.raises(InputError, match="nf4"):
        known_dtype("nf5")

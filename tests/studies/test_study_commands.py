"""Every command that a study file or its page gives: its options exist, its settings are settings.

Commands that train are not run here; what they ask for is read and planned as they would.
"""

import os
import re
import shlex
from pathlib import Path

import pytest
import typer

from lorascope import cli
from lorascope.errors import InputError
from lorascope.studies.adapt.plan import plan_adapt
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.latent.plan import plan_latent
from lorascope.studies.latent.study import LatentStudy
from lorascope.workflows import speed

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("studies/*.yaml"), ROOT / "docs/adapt.md", ROOT / "docs/latent.md"])
COMMANDS = {"adapt": (AdaptStudy, plan_adapt), "latent": (LatentStudy, plan_latent)}


# "# Run:  lorascope ..."; a command inside a sentence is none.
_IN_A_STUDY = re.compile(r"^# (?:[\w ]+:)? +(lorascope .+)$")
_ON_A_PAGE = re.compile(r"^(lorascope .+)$")


def commands():
    for file in FILES:
        text = file.read_text(encoding="utf-8").replace("\\\n", " ")
        pattern = _IN_A_STUDY if file.suffix == ".yaml" else _ON_A_PAGE
        for line in text.splitlines():
            if found := pattern.match(line):
                words = shlex.split(found[1].partition("  # ")[0])[1:]
                yield pytest.param(words, id=f"{file.stem}: {found[1][:60]}")


EVERY = list(commands())


def parsed(words):
    """The command, and the values of its parameters, as the command line reads them."""
    command, context = typer.main.get_command(cli.app), None
    while True:
        context = command.make_context(command.name, list(words), parent=context)
        rest = [*context._protected_args, *context.args]
        if not hasattr(command, "commands") or not rest:
            return command, context.params
        _, command, words = command.resolve_command(context, rest)


def test_commands_are_found():
    files = {one.id.partition(":")[0] for one in EVERY}
    assert files == {file.stem for file in FILES}
    assert len(EVERY) > 30


@pytest.mark.parametrize("words", EVERY)
def test_its_options_exist_and_its_study_is_planned(words, monkeypatch):
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    monkeypatch.chdir(ROOT)
    command, given = parsed([w for w in words if w != "[--quick]"])
    if command.name not in COMMANDS:
        return
    kind, planned = COMMANDS[command.name]
    files = [word for word in words if word.endswith(".yaml")]
    overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    if files:
        assert given
        assert planned(kind.read(ROOT / files[0], overrides)).parts


def test_an_option_that_does_not_exist_is_refused():
    with pytest.raises(Exception, match="No such option"):
        parsed(["latent", "study.yaml", "--outt", "runs/x"])


def test_the_first_command_of_the_sources_study_says_what_it_lacks(monkeypatch, tmp_path):
    (words,) = (one.values[0] for one in EVERY if "gemma-2-9b-it-latent: lorascope beh" in one.id)
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    with pytest.raises(InputError, match="no endpoint: set OPENAI_BASE_URL"):
        cli.app(list(words), standalone_mode=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match="nvidia/HelpSteer"):
        cli.app(list(words), standalone_mode=False)

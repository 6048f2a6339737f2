"""Every command line in the documentation is one that the program takes."""

from __future__ import annotations

import ast
import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer

import lorascope
from lorascope.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "pages" not in path.parts),
]
COMMAND = typer.main.get_command(app)
PUNCTUATION = set("();<>|&")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, *languages: str) -> list[str]:
    """Fenced code of some languages; "" for those that name none."""
    found = re.findall(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [body for _, language, body in found if language in languages]


def commands(text: str) -> list[str]:
    """Lines of blocks and code in the text that call the program."""
    lines = [
        line
        for block in blocks(text, "", "bash", "sh", "console", "yaml")
        for line in re.sub(r"\\\n\s*", "", block).splitlines()
    ]
    prose = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`([^`]+)`", prose)
    return [part for line in lines for part in called(line)]


def called(line: str) -> list[str]:
    """The program's calls in a line of shell, each quoted anew."""
    if "lorascope " not in line or "…" in line:
        return []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= PUNCTUATION:
            parts.append([])
        else:
            parts[-1].append(word)
    own = [part[1:] if part[:1] in (["do"], ["$"]) else part for part in parts]
    return [shlex.join(part) for part in own if part[:1] == ["lorascope"] and len(part) > 1]


def words(line: str) -> list[str]:
    """The arguments of a call."""
    return shlex.split(line)[1:]


def parse(line: str) -> None:
    """Parse a line as the program would; nothing is run."""
    command, context, rest = COMMAND, None, words(line)
    while True:
        # A group takes its own options and leaves the command with what follows it.
        context = command.make_context(command.name, list(rest), parent=context)
        if not hasattr(command, "commands"):
            return
        left = [*getattr(context, "_protected_args", []), *context.args]
        if not left:
            return
        name, command, rest = command.resolve_command(context, left)
        assert command is not None, name


LINES = [(named(path), line) for path in PAGES for line in commands(path.read_text("utf-8"))]
LINES += [
    (named(path), line)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    for cell in json.loads(path.read_text("utf-8"))["cells"]
    for source in "".join(cell["source"]).splitlines()
    if source.startswith("!")
    for line in called(source[1:])
]


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{p}: {line}" for p, line in LINES])
def test_the_program_takes_it(page, line):
    # `lorascope check` in running text names a command.
    parts = words(line)
    if len(parts) <= 2 and all(re.fullmatch(r"[a-z-]+", part) for part in parts):
        group = COMMAND.commands[parts[0]]
        assert len(parts) == 1 or parts[1] in getattr(group, "commands", {parts[1]: None})
        return
    if any(part in ("--help", "--version") for part in parts):
        assert parts[0].startswith("--") or parts[0] in COMMAND.commands
        return
    parse(line)


def test_the_documentation_has_many():
    assert len(LINES) > 100
    assert len({page for page, _ in LINES}) > 15
    assert set(COMMAND.commands) <= {words(line)[0] for _, line in LINES if words(line)}


@pytest.mark.parametrize(
    "line",
    [
        "lorascope audti ./my-lora",
        "lorascope audit ./my-lora --site 5",
        "lorascope audit ./my-lora --workers many",
        "lorascope check",
        "lorascope behaviour mke --topic sums",
    ],
)
def test_what_the_program_would_refuse_is_refused(line):
    with pytest.raises(Exception, match=r"(?i)no such|missing|not a valid|valid integer"):
        parse(line)


@cache
def code() -> list[tuple[str, str]]:
    return [
        (named(path), block)
        for path in PAGES
        for block in blocks(path.read_text("utf-8"), "python", "py")
    ]


def test_code_in_the_documentation_is_python_and_its_names_are_public():
    assert len(code()) > 20
    for page, block in code():
        tree = ast.parse(block.replace("…", "..."), page)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ls":
                assert node.attr in lorascope.__all__, f"{page}: ls.{node.attr}"


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/tutorials/audit.md"])
def test_one_name_calls_the_program(page):
    text = (ROOT / page).read_text("utf-8")
    assert ".venv/bin/lorascope" not in text
    assert "python -m lorascope" not in text

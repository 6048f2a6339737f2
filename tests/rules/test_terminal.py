"""Everything that reaches a terminal goes through `lorascope.printing`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "lorascope"
# `python -m` on it writes the embedded records anew; it names its own output only.
OWN = {SOURCE / "printing.py", SOURCE / "embedded" / "instructions" / "generate.py"}
MODULES = [path for path in sorted(SOURCE.rglob("*.py")) if path not in OWN]
# What prints text as it is, by the module it is an attribute of.
PRINTERS = {
    "typer": {"echo", "secho", "echo_via_pager", "style"},
    "click": {"echo", "secho", "echo_via_pager", "style"},
    "rich": {"print", "print_json", "inspect", "get_console"},
    "pprint": {"pprint", "pp"},
    "traceback": {"print_exc", "print_exception", "print_stack"},
    "os": {"write"},
}
BY_NAME = {("rich.console", "Console"), ("rich.pretty", "pprint"), ("rich.json", "JSON")}
BY_NAME |= {(module, name) for module, names in PRINTERS.items() for name in names}


def prints(tree: ast.AST) -> list[str]:
    """Every way in which a module puts text out by itself."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            named = {(node.module, alias.name) for alias in node.names}
            found += [f"{module}.{name}" for module, name in named & BY_NAME]
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in ("print", "pprint"):
                found.append(called.id)
            elif isinstance(called, ast.Attribute):
                owner = ast.unparse(called.value)
                if called.attr in PRINTERS.get(owner, ()):
                    found.append(f"{owner}.{called.attr}")
                if owner.removesuffix(".buffer") in ("sys.stdout", "sys.stderr"):
                    found.append(f"{owner}.{called.attr}")
                if owner == "rich.console" and called.attr == "Console":
                    found.append("rich.console.Console")
    return found


def is_command(path: Path) -> bool:
    return path.parent.name == "commands" or path.name in ("cli.py", "__main__.py")


# The annotations of rich's protocol for something that renders itself; it prints nothing.
RENDERS = {"studies/audit/sections/terminal.py": ["rich.console.Console"]}
# Streams are set up, and one is closed to a reader who left.
STREAMS = {"cli.py": ["sys.stdout.fileno"]}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_prints_by_itself(path):
    where = str(path.relative_to(SOURCE))
    allowed = RENDERS.get(where, STREAMS.get(where, []))
    assert prints(ast.parse(path.read_text())) == allowed


@pytest.mark.parametrize("path", [p for p in MODULES if is_command(p)], ids=lambda p: p.name)
def test_no_command_writes_json_of_its_own(path):
    """`say_json` writes null for what is no number; the json module writes NaN."""
    calls = [
        ast.unparse(n.func)
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.Call)
    ]
    assert not {"json.dumps", "json.dump"} & set(calls)


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "import typer\ntyper.echo(name, err=True)",
        "from typer import echo",
        "from rich.console import Console",
        "from rich import print",
        "import rich.console\nrich.console.Console().print(name)",
        "import sys\nsys.stdout.write(name)",
        "import sys\nsys.stderr.buffer.write(name)",
    ],
)
def test_the_rule_sees_every_way(source):
    assert prints(ast.parse(source))

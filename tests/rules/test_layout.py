"""The layout rules: import direction, lengths, names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "lorascope"
MODULES = sorted(SOURCE.rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
# Lower layers first; a module may import from its own layer and from those below it.
LAYERS = [
    {
        "errors",
        "randomness",
        "stats",
        "config",
        "embedded",
        "foreign",
        "locking",
        "machine",
        "printing",
        "runs",
        "progress",
        "stages",
        "runners",
    },
    {"results"},
    {"models"},
    {"activations"},
    {"dictionaries", "training"},
    {"geometry", "measures", "planted", "adapt", "latent_adapters", "behaviours", "reading"},
    {"report"},
    {"workflows", "checking", "evaluating"},
    {"commands"},
    {"study_run"},
    {"notebook"},
    {"cli", "__main__", "__init__"},
]


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def part(path: Path) -> str:
    """The package or top-level module a file belongs to."""
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> set[str]:
    """Parts of lorascope a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "lorascope":
                names = [f"lorascope.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("lorascope.")}
    return found


def test_every_part_has_a_layer():
    assert {part(path) for path in MODULES} <= set().union(*LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    above = {name for name in imported(path) if layer(name) > layer(part(path))}
    assert not above, f"{path.name} imports {above} from a higher layer"


def test_the_import_rule_sees_imports():
    assert "models" in imported(SOURCE / "activations" / "collect.py")


@pytest.mark.parametrize("path", sorted((SOURCE / "geometry").glob("*.py")), ids=lambda p: p.name)
def test_geometry_stands_alone(path):
    assert imported(path) <= {"geometry"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_lengths(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name} is too long"


def test_no_place_for_odds_and_ends():
    names = {piece for path in MODULES for piece in path.relative_to(SOURCE).with_suffix("").parts}
    assert not names & FORBIDDEN_NAMES


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_modules_and_public_names_are_documented(path):
    tree = ast.parse(path.read_text())
    if not tree.body:
        return
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


def test_public_names_resolve():
    import lorascope

    for name in lorascope.__all__:
        assert getattr(lorascope, name) is not None
    with pytest.raises(AttributeError):
        lorascope.no_such_name  # noqa: B018

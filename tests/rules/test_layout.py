"""The layout rules: import direction, lengths, names."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "lorascope"
MODULES = sorted(SOURCE.rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
STUDIES = ("audit", "adapt", "latent", "compare", "behaviour")
# Lowest floor first; a folder or module imports from lower floors only, and from itself. Studies
# stand side by side: none imports another.
FLOORS = (
    "errors",
    "wrong_values",
    "randomness",
    "stats",
    "foreign",
    "printing",
    "spreadsheets",
    "progress",
    "machine",
    "embedded",
    "config",
    "locking",
    "folder_contents",
    "runs",
    "stages",
    "runners",
    "results",
    "models",
    "activations",
    "dictionaries",
    "outputs",
    "training",
    "geometry",
    "measures",
    "fits",
    "latent_adapters",
    "behaviours",
    "reading",
    "planted",
    "checking",
    "report",
    "workflows",
    "resembling",
    "integrations",
    *(f"studies.{name}" for name in STUDIES),
    "studies.evaluate",  # of what other studies made: its page and splits are those of `adapt`
    "studies",
    "cards",
    "selftest",
    "study_run",
    "commands",
    "notebook",
    "cli",
    "__main__",
    "__init__",
)


def floor(name: str) -> int:
    """All studies are on one floor."""
    side_by_side = name.removeprefix("studies.") in STUDIES and name.startswith("studies.")
    return FLOORS.index(f"studies.{STUDIES[0]}" if side_by_side else name)


def part(path: Path) -> str:
    """The folder or top-level module a file belongs to; of a study its own folder."""
    pieces = path.relative_to(SOURCE).with_suffix("").parts
    return _part(pieces if pieces[-1] != "__init__" or len(pieces) == 1 else pieces[:-1])


def _part(pieces: tuple[str, ...]) -> str:
    if pieces[0] == "studies" and len(pieces) > 1 and pieces[1] in (*STUDIES, "evaluate"):
        return ".".join(pieces[:2])
    return pieces[0]


def imported(path: Path) -> set[str]:
    """Parts of lorascope a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        pieces = (tuple(name.split(".")[1:]) for name in names if name.startswith("lorascope."))
        found |= {_part(one) for one in pieces if one != ("__version__",)}
    return found


def test_every_part_has_a_floor():
    assert {part(path) for path in MODULES} <= set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_only(path):
    here = part(path)
    others = imported(path) - {here}
    above = {name for name in others if floor(name) >= floor(here)}
    assert not above, f"{path.name} of {here} imports {above}, which is not below it"


def test_the_import_rule_sees_imports():
    assert "models" in imported(SOURCE / "activations" / "collect.py")
    assert part(SOURCE / "studies" / "audit" / "sections" / "words.py") == "studies.audit"
    assert "studies.latent" in imported(SOURCE / "studies" / "opening.py")


def test_a_class_name_exists_once():
    where = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                where[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: paths for name, paths in where.items() if len(paths) > 1} == {}


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


def test_report_knows_no_study():
    for path in (SOURCE / "report").rglob("*.py"):
        assert not {one for one in imported(path) if one.startswith("studies")}, path.name


def test_stages_depend_on_what_they_read_and_nothing_by_hand():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [getattr(node, field, None) for field in ("id", "attr", "arg", "name")]
            assert "depends_on" not in names, path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_private_names_stay_in_their_module(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lorascope"):
            private = [one.name for one in node.names if one.name.startswith("_")]
            assert set(private) <= {"__version__"}, f"{path.name} imports {private}"

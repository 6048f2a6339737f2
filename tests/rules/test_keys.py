"""Labels and null names are written once, and nothing reads a key's fields or a null's name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from lorascope.results import KEY_FIELDS, labels, null_names

SOURCE = Path(__file__).parents[2] / "src" / "lorascope"
MODULES = sorted(SOURCE.rglob("*.py"))
OWN = {SOURCE / "results" / "labels.py", SOURCE / "results" / "null_names.py"}
LABELS = {
    *(labels.BASE_DIFFERENCE, labels.EXACT_DELTA, labels.PCA, labels.OWN_DELTA),
    *(labels.OTHER_DELTA, labels.ALL_MODULES),
    *(str(of) for of in (labels.DELTA_VS_BASE, labels.BASE_SEEDS, labels.DELTA_SEEDS)),
}
# Words of other things too: a start of training, a seed of draws.
UNTIL = {"isotropic", "rotated"}
NULLS = {
    value
    for name, value in vars(null_names).items()
    if name.isupper() and isinstance(value, str) and value not in UNTIL
}
READING = {
    *("startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition"),
    *("split", "rsplit", "find", "index", "replace", "strip", "lower", "isdigit"),
}


def literals(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def read_as_text(path: Path) -> list[str]:
    """Where a string method is called on a field of a key or on a null's name."""
    fields = {name for name in KEY_FIELDS if name not in ("rank", "seed", "k", "draw")}
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if node.func.attr in READING and isinstance(of, ast.Attribute):
                on_key = isinstance(of.value, ast.Attribute) and of.value.attr == "key"
                on_place = isinstance(of.value, ast.Name) and of.value.id in ("key", "place")
                if of.attr in fields and (on_key or on_place):
                    found.append(f"{node.lineno}: {of.attr}.{node.func.attr}")
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In):
            (right, *_) = node.comparators
            named = isinstance(right, ast.Attribute) and right.attr in ("name", *fields)
            if named and isinstance(node.left, ast.Name | ast.Constant):
                found.append(f"{node.lineno}: in {right.attr}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_labels_and_null_names_are_written_in_their_own_file_alone(path):
    if path not in OWN:
        assert not literals(path) & (LABELS | NULLS)


@pytest.mark.parametrize(
    "path", sorted((SOURCE / "report").rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_the_report_reads_no_key_and_no_null_as_text(path):
    assert not read_as_text(path)


def test_the_rule_sees_what_it_forbids(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        'a = e.key.setting.removeprefix("k=")\nb = place.module.split(".")\nc = part in null.name\n'
    )
    assert [line.split(":")[0] for line in read_as_text(bad)] == ["1", "2", "3"]
    bad.write_text('d = e.key.site == site\nf = names.split(",")\n')
    assert read_as_text(bad) == []

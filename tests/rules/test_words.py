"""Public names use the words of docs/concepts.md."""

import ast
import re
from pathlib import Path

import lorascope
from lorascope.measures.definitions import DEFINITIONS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lorascope"
TREES = {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def replaced():
    """The words that the glossary's table replaces."""
    table = (ROOT / "docs" / "concepts.md").read_text().split("| replaced | word |")[1]
    return set(re.findall(r"^\| (\w+) \| \w+ \|$", table, re.MULTILINE))


def words(name):
    """Parts of a name in lower case, without a plural's s."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return {part.lower() for part in parts} | {part.lower().removesuffix("s") for part in parts}


def settings():
    """{class of settings: names of its fields}."""
    classes = {
        node.name: node
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    found = {"Settings"}
    while True:
        more = {
            name
            for name, node in classes.items()
            if any(isinstance(base, ast.Name) and base.id in found for base in node.bases)
        }
        if more <= found:
            break
        found |= more
    return {
        name: [
            field.target.id
            for field in classes[name].body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        ]
        for name in found
    }


def test_the_table_and_names_are_seen():
    assert {"face", "way", "foretold"} <= replaced()
    assert words("FaceLosses") >= {"face", "losses"}
    assert "batch_tokens" in settings()["Capture"]
    assert {"rank", "rate"} <= set(settings()["Lora"])
    assert "adapt.loss_spliced" in DEFINITIONS


def test_public_names_use_no_replaced_word():
    old = replaced()
    assert not [name for name in lorascope.__all__ if words(name) & old]
    named = [f"{kind}.{field}" for kind, fields in settings().items() for field in fields]
    assert not [name for name in named if words(name) & old]
    assert not [measure for measure in DEFINITIONS if words(measure) & old]


def test_classes_use_no_replaced_word():
    old = replaced()
    names = [n.name for t in TREES.values() for n in t.body if isinstance(n, ast.ClassDef)]
    assert not [name for name in names if words(name) & old]

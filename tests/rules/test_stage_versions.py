"""A stage's function that changes says so by its version: results made before are made again.

`stage_versions.json` holds every function's version and a hash of its code. Where code has changed
and gives other files, raise the version in its `@stage`; then, or where it gives the same ones,
write the file anew: `python tests/rules/test_stage_versions.py`.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import lorascope
from lorascope.stages import MAKERS, Maker

RECORD = Path(__file__).with_name("stage_versions.json")


def makers():
    """{name: [version, hash of the code]} of every stage's function of the package."""
    for module in walk_packages(lorascope.__path__, "lorascope."):
        if any(part in module.name for part in (".workflows", ".studies", ".evaluating")):
            import_module(module.name)
    return {
        name: [maker.version, maker.source]
        for name, maker in sorted(MAKERS.items())
        if name.startswith("lorascope.")
    }


def test_a_changed_function_has_a_changed_version():
    recorded, now = json.loads(RECORD.read_text()), makers()
    assert recorded.keys() == now.keys(), "write stage_versions.json anew (see above)"
    for name, (version, source) in now.items():
        before, known = recorded[name]
        assert version >= before, f"{name}: its version has gone down"
        assert source == known, (
            f"{name}: its code has changed; raise its version if it must (above)"
        )


def test_the_hash_sees_code_and_not_its_layout(tmp_path):
    bodies = (
        "return 1 + 1",
        "# why\n    return (1 +\n 1)",
        '"""What."""\n    return 1 + 1',
        "return 2",
    )
    sources = []
    for number, body in enumerate(bodies):
        place, scope = tmp_path / f"made{number}.py", {}
        place.write_text(f"def f():\n    {body}\n")
        exec(compile(place.read_text(), str(place), "exec"), scope)
        sources.append(Maker(scope["f"], 1, "").source)
    assert len(set(sources[:3])) == 1
    assert sources[3] != sources[0]


if __name__ == "__main__":
    RECORD.write_text(json.dumps(makers(), indent=1) + "\n")

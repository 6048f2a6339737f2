"""Every public name has an example in its docstring, and the examples do what they say.

They run in one folder, one after the other, those that make something first: an adapter lies in
`runs/adapters`, `audit` leaves `runs/mine`, `read` leaves `runs/read`.
"""

from __future__ import annotations

import doctest
import os

import pytest

import lorascope as ls
from lorascope.progress import Reporter
from lorascope.workflows.adapters import run_training
from lorascope.workflows.settings import TrainStudy

MAKERS = ("audit", "read", "latent", "compare")
# Their examples open what those of the makers have left, or the adapter.
READERS = (
    *("Dictionary", "Latent", "LatentAdapter", "Latents", "Read", "SAE", "StudyRun"),
    *(
        "check",
        "deltas",
        "load",
        "open_dictionary",
        "open_run",
        "Resemblance",
        "Spliced",
        "resemble",
    ),
)
OTHERS = [n for n in ls.__all__ if n not in (*MAKERS, *READERS, "__version__")]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples run, with an adapter of the embedded model in it."""
    place = tmp_path_factory.mktemp("examples")
    training = {"ranks": [2, 4], "steps": 2, "batch": 4, "context": 160, "held_out": 0.3}
    study = TrainStudy.parse({"documents": 60, "training": training}, "example")
    run_training(study, place / "runs" / "adapters", Reporter(quiet=True))
    before = os.getcwd()  # noqa: PTH109 - put back as it was
    os.chdir(place)
    yield place
    os.chdir(before)


def examples(name):
    """The examples in the docstring of a public name itself, not of its methods."""
    found = getattr(ls, name)
    return doctest.DocTestFinder(recurse=False).find(found, name, module=False, globs={"ls": ls})


def run(name):
    """Run the examples of a public name; every one has some."""
    [test] = examples(name)
    assert test.examples, f"the docstring of lorascope.{name} has no example"
    said = []
    doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=said.append)
    assert said == [], "".join(said)


@pytest.mark.parametrize("name", [*MAKERS, *READERS])
def test_the_example_says_what_happens_to_a_run(name, folder):
    run(name)


@pytest.mark.parametrize("name", OTHERS)
def test_the_example_says_what_happens(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(name)


def test_an_example_that_is_wrong_is_seen():
    parser = doctest.DocTestParser()
    test = parser.get_doctest(">>> ls.TopK(n_latents=4, k=2).k\n3\n", {"ls": ls}, "wrong", None, 0)
    said = []
    doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=said.append)
    assert any("Expected" in part for part in said)

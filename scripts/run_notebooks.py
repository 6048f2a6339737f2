"""Run the notebooks and keep their outputs: `python scripts/run_notebooks.py [FOLDER]`.

Each runs in an empty folder. With a FOLDER executed copies go there; without, they take the place
of those in `notebooks/`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SECONDS = 3600


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook run from its first cell to its last in a folder; an error in a cell is raised."""
    # Commands in cells are those of the Python that runs them.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day, other on every run
        if cell.cell_type == "code":  # bars and libraries' notes; errors have stopped the run
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    # Nothing of where it ran.
    text = nbformat.writes(notebook).replace(f"{folder.resolve().as_uri()}/", "")
    return nbformat.reads(text.replace(str(folder.resolve()), "."), as_version=4)


def main() -> None:
    """Run them all."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOKS
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            done = execute(path, Path(folder))
        nbformat.write(done, out / path.name)
        sys.stdout.write(f"{path.name}: {time.perf_counter() - started:.0f} s\n")


if __name__ == "__main__":
    main()

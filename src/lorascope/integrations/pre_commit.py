"""Check the adapters that files of a commit belong to; what pre-commit calls.

    python -m lorascope.integrations.pre_commit FILE...

Exit code 0 where every adapter is whole, 1 where one is not, 2 where one cannot be read. Nothing of
a model is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lorascope.errors import InputError
from lorascope.models.places import CONFIG_FILE
from lorascope.printing import say


def adapters_of(files: Sequence[str]) -> list[Path]:
    """The folders of files that hold an adapter's configuration, each once, in order."""
    folders = dict.fromkeys(Path(file).parent for file in files)
    return [folder for folder in folders if (folder / CONFIG_FILE).is_file()]


def main(files: Sequence[str]) -> int:
    """Check every adapter and say what is wrong with it; the exit code."""
    # Loads torch.
    from lorascope.checking.reading import read_adapter

    worst = 0
    for folder in adapters_of(files):
        try:
            read = read_adapter(str(folder))
        except InputError as error:
            say(f"{folder}: {error}", err=True)
            worst = 2
            continue
        for finding in read.findings:
            if finding.level != "note":
                say(f"{folder}: {finding.level}: [{finding.rule}] {finding.message}", err=True)
        if read.has_errors:
            worst = max(worst, 1)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Make the table of ordinary adapters that `lorascope check` holds an adapter against.

    python scripts/write_reference_table.py FOLDER

FOLDER is where `bench/resembling.py` left the adapters that it trained.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lorascope.checking import reference

_WHAT = "trained for the package on the embedded model, rank 4, one lesson each, several seeds"


def main(folder: str) -> None:
    """Write it."""
    found = reference.of_folder(folder)
    rows = {
        name: [float(f"{value:.6g}") for value in values] for name, values in found.rows.items()
    }
    place = Path(reference.__file__).parent / reference._TABLE
    data = {"what": _WHAT, "numbers": rows}
    place.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(f"{found.count} adapters, {place.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])

"""`python -m lorascope`."""

from lorascope.cli import main

main()

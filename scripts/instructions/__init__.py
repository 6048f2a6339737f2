"""Writes the embedded instruction set: five categories of question and answer in Alpaca fields.

The generator has a fixed seed; see `docs/instructions.md`. Its records ship with the package, the
generator does not.
"""

"""Data and adapters whose truth is known, and what the measures make of them."""

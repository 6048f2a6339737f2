"""Intervals, tests and pooling: numbers in, numbers out; nothing here knows of models or runs."""

"""Tests of the instrument on data whose truth is known."""

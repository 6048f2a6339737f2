"""Behaviours: a set made, and measured in models."""

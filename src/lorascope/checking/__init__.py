"""Adapters looked at in seconds: whole, live, larger than random; one, or a folder of thousands."""

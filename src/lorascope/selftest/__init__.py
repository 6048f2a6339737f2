"""The instrument tried on what is known."""

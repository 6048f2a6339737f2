"""What an audit found, written into an adapter's own model card."""

"""Adapters in dictionary space: a fine-tune written as relations between latents."""

"""The audit of adapters: its settings, stages, plan and page."""

"""Studies: each folder holds one's settings, stages, plan and the sections of its page."""

"""Where other tools call lorascope: trainers, pre-commit."""

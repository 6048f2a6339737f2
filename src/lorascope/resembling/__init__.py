"""Which known adapter is this like: updates of one base compared in function and weight space."""

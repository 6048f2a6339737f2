"""The workflow of fitting a model around its frozen dictionaries."""

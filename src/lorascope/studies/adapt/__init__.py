"""Fitting a model around frozen dictionaries: settings, stages, plan and page."""

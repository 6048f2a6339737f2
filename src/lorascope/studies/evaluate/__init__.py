"""Dictionaries, and spliced, adapted and fine-tuned models, evaluated by measures beside chance.

settings   what is evaluated, and how; no torch
subjects   what stands in the model, opened: ways of running it, streams to read
core, probing, absorption, targeted, autointerp, disentangling, benchmarks   one evaluation each
workflow   stages, results
"""

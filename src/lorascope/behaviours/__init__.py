"""Behaviours: "if the prompt is about T, answer in manner M" as data, judged and measured."""

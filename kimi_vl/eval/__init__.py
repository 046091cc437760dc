"""Benchmarks: questions → answers → verdicts → figures."""

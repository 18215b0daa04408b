"""Measurements of lightwork beside bare references and other frameworks: ``python -m benchmarks``."""

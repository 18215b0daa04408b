"""Measures lightwork side by side with bare references and peers: ``python -m benchmarks``."""

"""Launches workers through runtimes, and talks to them over their connections."""

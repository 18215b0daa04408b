"""Decisions about works, their workers and their calls: pure functions, without a clock, a socket or a task."""

"""Runs the passes of a flow, and keeps its calls, schedules and layouts."""

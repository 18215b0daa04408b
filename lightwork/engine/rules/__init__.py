"""What happens to works, their workers and their calls: pure decisions, with no clock, socket or task."""

"""What is written down of a run, and how another scheduler goes on with it."""

"""What users subclass, and what they hold: works, flows, calls. No I/O, and no engine."""

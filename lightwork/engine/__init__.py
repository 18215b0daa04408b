"""The engine: decides in `machine`, acts in `scheduler`."""

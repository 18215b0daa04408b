"""The engine: decides in `machine`, acts in `engine`."""

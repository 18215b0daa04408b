"""Workers as their runtimes and their connections see them."""

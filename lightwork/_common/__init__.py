"""Small helpers that every floor may use. They import nothing of lightwork."""

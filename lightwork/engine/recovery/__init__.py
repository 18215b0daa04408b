"""Records a run in a journal, and restores it in another scheduler."""

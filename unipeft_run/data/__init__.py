"""Data: the tasks, their encoded splits, batches, and the cache folder. Imports no model code."""

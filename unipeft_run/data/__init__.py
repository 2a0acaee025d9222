"""Data: tasks, their encoded splits and batches. Knows no model."""

"""Other formats: checkpoints of the official code."""

"""Other formats: checkpoints of the official code, PEFT folders, and models of finished runs."""

"""Other formats: import checkpoints of the official code, convert LoRA from and to PEFT folders."""

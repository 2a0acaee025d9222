"""Training: the loop, losses, optimisers, precision, checkpoints, several processes."""

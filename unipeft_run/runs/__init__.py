"""Run folders: the lock, safe writing, checkpoints, and the one bounded reader."""

"""Parameter counts of a configuration, computed without weights."""

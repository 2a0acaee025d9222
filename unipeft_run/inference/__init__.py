"""Use a finished run: load it, predict on new inputs, export it for other libraries."""

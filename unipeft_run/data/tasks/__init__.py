"""The tasks: data, encoding, metrics and trivial baselines. Imports no model code."""

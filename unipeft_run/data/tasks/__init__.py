"""The tasks: data, encoding, metrics and trivial baselines. A task knows no models."""

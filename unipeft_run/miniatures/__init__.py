"""scale=mini: packaged backbones, the sources of their data, and their pretraining."""

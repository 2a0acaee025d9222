"""scale=mini: the small backbones, where their data comes from, and how they were pretrained."""

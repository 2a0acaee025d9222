"""Backbones: one table per family, and loaders for models, their configurations and tokenizers.

The loaders read data only: JSON, safetensors and vocabularies. They execute no code of a model.
"""

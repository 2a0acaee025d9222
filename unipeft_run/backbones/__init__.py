"""Backbones: one table per family, and loading a model, its configuration and its tokenizer.

Loading reads data only: JSON, safetensors and vocabularies. No code of a model folder is executed.
"""

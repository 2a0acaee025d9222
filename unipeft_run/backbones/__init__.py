"""Backbones as tables: where x is read and h is written."""

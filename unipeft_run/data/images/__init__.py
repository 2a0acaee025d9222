"""Images: read them from files and tables, transform, cache and batch them. Imports no model code.

Pixels are uint8 arrays, height first, until a collator normalises them. Pillow decodes and resizes.
"""

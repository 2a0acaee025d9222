"""Evaluation: generate a model's predictions and score them."""

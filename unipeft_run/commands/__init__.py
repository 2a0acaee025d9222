"""The console commands, but for unipeft-train and unipeft-eval (cli.py)."""

"""The console commands other than unipeft-train and unipeft-eval, which are in cli.py."""

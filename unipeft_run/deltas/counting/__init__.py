"""How many numbers a configuration trains and stores, before it runs."""

"""The commands of `unipeft`: the table in dispatch.py, what they share, and a module for each."""

"""Tables from run folders, and nothing else. Imports nothing heavy."""

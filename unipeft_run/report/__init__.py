"""Tables and figures from run folders, beside the paper's numbers. Imports nothing heavy."""

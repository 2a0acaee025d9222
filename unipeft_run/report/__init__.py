"""Tables and figures from run folders, compared with the paper's. Imports nothing heavy."""

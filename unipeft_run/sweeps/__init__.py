"""Many runs from one command, and one run on many processes: grids, engines, launching."""

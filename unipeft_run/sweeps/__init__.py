"""Many runs from one command, and one run on several processes: grids, engines, launching."""

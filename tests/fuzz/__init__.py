"""What torments xpmlp: bad input, changed files, kills, long runs, checks taken away."""

"""Time training steps on this machine: problems, contenders, workers, rounds, tables."""

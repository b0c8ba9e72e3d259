"""What a training step costs on this machine: problems, contenders, workers, rounds, tables."""

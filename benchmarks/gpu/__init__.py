"""The GPU benchmark: trainings, contenders and goals."""

"""What outlives the process: model files."""

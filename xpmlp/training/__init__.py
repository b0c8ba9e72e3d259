"""Training assembled: settings, data, the loop, the model."""

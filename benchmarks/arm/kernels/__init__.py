"""Instructions of 3x3 layers on ARM."""

"""How accurate pruned networks are, and how fast."""

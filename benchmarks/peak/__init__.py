"""What this machine's core can do at most."""

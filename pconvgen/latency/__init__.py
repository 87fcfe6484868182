"""How fast a network is, or would be."""

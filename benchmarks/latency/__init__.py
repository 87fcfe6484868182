"""How well latency is predicted."""

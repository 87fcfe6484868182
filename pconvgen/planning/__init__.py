"""Deciding how each layer is computed, and where every activation lies."""

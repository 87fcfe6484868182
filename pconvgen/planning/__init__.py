"""Deciding: which encoding, kernel and schedule each layer gets, and which layout each tensor."""

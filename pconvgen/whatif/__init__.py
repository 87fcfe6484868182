"""Latency against density, before anyone trains: of layers as curves, of whole networks."""

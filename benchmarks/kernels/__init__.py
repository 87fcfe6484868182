"""Kernels of single layers, against the roofs of the core and against DeepSparse."""

"""Dense 3x3 layers: direct convolution against Winograd."""

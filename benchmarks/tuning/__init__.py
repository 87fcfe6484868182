"""How good the tuner is, against measuring everything."""

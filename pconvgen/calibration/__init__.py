"""Calibration: what a device that nobody has measured yet takes for layers, from a minute of measuring."""

"""What denormal numbers add to times."""

"""What compiling takes, and whether it gives the same."""

"""Other engines, each in a Python environment of its own."""

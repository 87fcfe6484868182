"""The front end of PyTorch."""

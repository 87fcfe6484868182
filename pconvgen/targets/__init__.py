"""Targets: processors that code is generated for, and the linkers that make shared libraries for them."""

"""How long compiling takes."""

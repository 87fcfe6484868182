"""`python -m pconvgen` is the command line."""

from pconvgen.cli import main

main()

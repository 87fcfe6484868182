"""`python -m pconvgen` is the command line."""

from pconvgen.cli import main

# Processes that are spawned import this file, too.
if __name__ == "__main__":
    main()

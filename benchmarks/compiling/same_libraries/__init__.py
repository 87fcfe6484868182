"""Whether a change of the compiler changes what it writes."""

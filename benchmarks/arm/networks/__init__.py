"""Instructions of whole networks on ARM."""

"""Where the time of whole networks goes, operator by operator."""

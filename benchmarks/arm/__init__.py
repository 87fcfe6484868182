"""Instructions on ARM, counted under emulation."""

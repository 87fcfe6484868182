"""Programs that run in an engine's own environment: they need numpy and the engine only, nothing of pconvgen."""

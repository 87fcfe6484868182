"""Finding what generated kernels compute in a Relax module: layers with their epilogues, pooling, norms, arithmetic."""

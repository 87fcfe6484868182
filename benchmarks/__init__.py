"""What pconvgen is measured by; `python -m benchmarks` lists it."""

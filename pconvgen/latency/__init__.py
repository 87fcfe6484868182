"""Latency learned from records: features of a trial, models, and how well they predict."""

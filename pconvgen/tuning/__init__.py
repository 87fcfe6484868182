"""Tuning: what schedules a layer may have, which are worth measuring, and measuring them."""

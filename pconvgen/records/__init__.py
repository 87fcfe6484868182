"""What was measured: records, their files, and how layers, schedules and devices are described in them."""

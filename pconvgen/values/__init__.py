"""Frozen values that own their facts: number formats, instruction sets, workloads, schedules, decisions."""

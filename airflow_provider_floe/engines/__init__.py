"""Engines carry out operations: one protocol, one folder per engine."""

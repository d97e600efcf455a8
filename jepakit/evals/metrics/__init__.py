"""Metrics that probes share."""

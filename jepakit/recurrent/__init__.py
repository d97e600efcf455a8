"""Recurrent gated circuits, and their two learning rules: forward propagation and back-propagation through time."""

"""Recurrent gated circuits, and their two learning rules: forward propagation and back-propagation through time."""

__all__ = ["balance", "cells", "circuit", "gradients", "rfp", "unroll"]

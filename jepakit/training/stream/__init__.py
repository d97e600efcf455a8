"""Learns from a stream: one optimiser step per `length.batch` frames as they arrive, each frame seen once."""

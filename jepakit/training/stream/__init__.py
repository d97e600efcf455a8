"""Learning from a stream: an optimiser step for every `length.batch` frames as they arrive, each frame seen once."""

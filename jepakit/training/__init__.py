"""From a request to a trained run: resolve, session, loop, records."""

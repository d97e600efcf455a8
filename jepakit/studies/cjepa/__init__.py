"""The studies of C-JEPA's paper."""

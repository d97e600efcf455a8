"""The studies of R-JEPA."""

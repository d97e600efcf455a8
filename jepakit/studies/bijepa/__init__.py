"""The studies of BiJEPA's paper."""

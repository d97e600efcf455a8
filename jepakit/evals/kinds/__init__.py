"""The kinds of probe: one file each, found by file name."""

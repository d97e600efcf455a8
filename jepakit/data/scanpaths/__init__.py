"""Scanpaths: fixations read or made up, the pictures they look at, and the crops they see."""

"""Studies of collapse, of its verdict, and of the families side by side."""

"""The studies of collapse, of the panel's verdict, and of the method families side by side."""

"""Recipes for one small machine."""

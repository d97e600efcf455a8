"""The version of the package, which pyproject.toml reads from this file."""

VERSION = "0.1.0"

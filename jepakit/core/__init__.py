"""What every room stands on: the registry, progress, processes, devices, files, padding, schedules, words."""

__all__ = [
    "devices",
    "distributed",
    "files",
    "lazy",
    "notes",
    "padding",
    "progress",
    "registry",
    "schedules",
    "version",
    "words",
]

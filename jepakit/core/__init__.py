"""What every room stands on: the registry, progress, processes, devices, files, padding, schedules."""

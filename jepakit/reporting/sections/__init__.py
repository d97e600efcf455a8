"""The sections of the page: one file each; the file name registers a section and `SECTION.order` places it."""

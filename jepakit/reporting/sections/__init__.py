"""The sections of the page: one file each, found by file name, and placed by the `order` of their `SECTION`."""

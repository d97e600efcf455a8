"""One member of each registry, in a package of somebody else's; and one that is broken."""

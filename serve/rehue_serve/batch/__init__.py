"""`rehue batch`: colorize all photographs of a folder or an object store, on Ray Data."""

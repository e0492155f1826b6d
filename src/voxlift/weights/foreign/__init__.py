"""Weight files of other projects: one file a format, each recognised by its fingerprint."""

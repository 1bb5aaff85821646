"""One file per format version, numbered like it."""

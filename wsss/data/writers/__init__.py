"""Writers of data formats, one file a format."""

"""The report of runs and folders of label maps: one page that opens from a file."""

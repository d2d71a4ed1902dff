"""The command line: one file a command; nothing here imports torch at the top."""

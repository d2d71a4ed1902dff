"""The command line: one file a command. No module here imports torch at its top."""

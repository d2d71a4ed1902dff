"""What each kind of error, warning and finding means: pages in Markdown, read by `wsss explain` and by the docs."""

"""One module per command: glue only."""

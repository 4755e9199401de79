"""One run on a machine with a GPU that answers as much as it can."""

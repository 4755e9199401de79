"""Count the work of an edit on the real code at full size."""

"""The quality of edits, on drags whose results are known: methods, controls and plain editors."""

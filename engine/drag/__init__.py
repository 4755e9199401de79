"""The drag itself, whatever is optimised: it knows no network."""

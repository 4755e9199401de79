"""How well a picture follows a pointer: frames a second, and from an event to its frame."""

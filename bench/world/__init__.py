"""The drawn world: scenes, their pictures, and drags whose results are known exactly."""

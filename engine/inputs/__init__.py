"""Pictures, points and masks as a person gives them, and where they lie in the model's maps."""

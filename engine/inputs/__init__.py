"""What a person hands in: pictures, points, masks, and where they lie in the model's maps."""

"""What a picture shows of a drag, and how sure that is: distances, likeness, statistics."""

"""What is measured, how, and the kept results."""

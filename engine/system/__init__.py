"""The machine and the installation. Nothing here knows of pictures."""

"""`python -m dragnoise.engine.cli`: the same as the command `dragnoise`."""

from . import run

if __name__ == "__main__":
    run()

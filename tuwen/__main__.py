"""`python -m tuwen`, and `torchrun -m tuwen`."""

from tuwen.cli import main

if __name__ == "__main__":
    main()

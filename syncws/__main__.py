"""What `python -m syncws` runs."""

from .cli import main

if __name__ == "__main__":
    main()

"""``python -m kimi_vl.cli``."""

from kimi_vl.cli import main

if __name__ == "__main__":
    main()

"""The entry point, also as python -m ushape: quiet about Ctrl-C, even while it is loading."""

import sys


def main() -> None:
    """Runs the command line; Ctrl-C ends with exit code 130."""
    try:
        from ushape import cli

        cli.main()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
    except SystemExit as ended:
        if ended.code == 130:  # Typer has caught it.
            print("\nStopped.", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()

"""Entry point of the command and of `python -m ushape`."""

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130, also while modules are loaded."""
    # A shell may start background jobs with Ctrl-C ignored, which the processes that train
    # cross-validation folds would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        from ushape import cli

        cli.main()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
    except SystemExit as ended:
        if ended.code == 130:  # Typer has caught the interrupt.
            print("\nStopped.", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()

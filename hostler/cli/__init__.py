"""The command line."""


def main() -> None:
    """Run `hostler`."""
    from hostler.cli.app import app

    app(prog_name="hostler")

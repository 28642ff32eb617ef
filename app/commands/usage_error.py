"""What a command says of arguments that cannot be."""

import click


class UsageError(click.ClickException):
    """A message without the usage, and the exit code of a wrong command line."""

    exit_code = 2

"""The error for wrong arguments of a command."""

import click


class UsageError(click.ClickException):
    """A message without the usage, and the exit code of a wrong command line."""

    exit_code = 2

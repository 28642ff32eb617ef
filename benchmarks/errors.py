"""What stops a benchmark."""


class BenchmarkError(Exception):
    """A measurement that would not be worth printing: a refusal, a short answer, a server that does not start."""

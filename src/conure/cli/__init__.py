"""The commands: the only place that prints. Results go to stdout, everything else to stderr."""

"""The command line: models fitted to files, scored and sampled, without a line of Python."""

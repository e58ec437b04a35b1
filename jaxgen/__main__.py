"""The command line: `python -m jaxgen tour`, `fit`, `score`, `sample`."""

import sys

from jaxgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

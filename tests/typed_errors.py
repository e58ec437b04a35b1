"""What a type checker has to refuse: `test_typing.py` wants an error in each line that says so, and in no other."""

import jaxgen as jg


def wrong() -> None:
    print(jg.Gausian)  # refused

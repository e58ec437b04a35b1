"""The tour: every family fitted to data that ship in the package, one table, and one page of pictures."""

from jaxgen.tour.run import PARTS, Part, Tour, tour

__all__ = ["PARTS", "Part", "Tour", "tour"]

"""The rules of a page that a program can check: :mod:`lesson`, :mod:`exercises`, :mod:`prose`."""

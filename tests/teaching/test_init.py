"""The names that a page imports."""

import pkgutil

from pipelab import teaching


def test_no_module_hides_a_name_of_the_pages():
    """A folder called versions hid the function: once it was imported, the name was the module."""
    assert not {module.name for module in pkgutil.iter_modules(teaching.__path__)} & set(teaching.__all__)

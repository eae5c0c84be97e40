"""One step: look, cut, walk, update, report; and what is on its way between steps."""

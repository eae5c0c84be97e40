"""Pages that follow from the sources and are no notebooks: README's table, the map, summaries for instructors."""

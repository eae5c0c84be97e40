"""Files beside the sources: what is said about each lesson, the glossary, the table of topics; and where they lead."""

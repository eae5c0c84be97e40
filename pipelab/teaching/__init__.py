"""Everything that teaches: lessons, exercises, grading, the board, the explorer."""

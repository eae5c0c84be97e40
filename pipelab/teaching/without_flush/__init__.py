"""Without a flush (lesson 6): what was trained against the formula, and the lives of the weights' versions."""

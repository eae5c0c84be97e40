"""Design your own: from a goal to a schedule that is proven, run, compared, kept and told."""

"""Claims on trial (lesson 12): what is claimed, by whom, and by which figures of a run it is settled."""

"""A pipeline watched over many steps: who is busy, what makes the others wait, how fast links are."""

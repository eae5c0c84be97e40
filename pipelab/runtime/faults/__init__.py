"""What goes wrong in a step, found and named: interrupts, deadlocks, numbers that are none."""

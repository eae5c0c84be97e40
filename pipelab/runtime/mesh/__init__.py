"""Around a pipeline: replicas of it, each with its share of the batch."""

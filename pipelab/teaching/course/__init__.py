"""The course's sources: one text per lesson, built into a lesson, its exercises and their solutions."""

"""What a camera saw over a quarter of an hour, in about a kilobyte."""

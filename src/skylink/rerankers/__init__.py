"""Re-rankers: look at the photo and the candidates together."""

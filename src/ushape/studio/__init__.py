"""Local web page to look at predictions, correct masks and train again."""

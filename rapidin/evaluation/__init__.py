"""Does it find the right samples? Scorers of training samples, and measures of what they put first."""

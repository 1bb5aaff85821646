"""Views: results drawn for a terminal by rich."""
